//! A writer that fails or dies at any byte leaves the old content whole.

use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use zerosearch_files::{StagedFile, append, write_atomic};

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_old_content_stands_until_the_new_is_whole(
        old in vec(any::<u8>(), 0..200),
        new in vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        pieces in 1usize..20,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        write_atomic(&path, &old).unwrap();
        let written = &new[..cut.index(new.len() + 1)];

        // It fails: nothing is left of it.
        let mut staged = StagedFile::create(&path).unwrap();
        for piece in written.chunks(pieces) {
            staged.write_all(piece).unwrap();
            prop_assert_eq!(&fs::read(&path).unwrap(), &old);
        }
        drop(staged);
        prop_assert_eq!(names(folder.path()), ["rows.jsonl"]);
        prop_assert_eq!(&fs::read(&path).unwrap(), &old);

        // It dies before it tidies up: the next write does.
        let mut staged = StagedFile::create(&path).unwrap();
        staged.write_all(written).unwrap();
        std::mem::forget(staged);
        prop_assert_eq!(&fs::read(&path).unwrap(), &old);
        write_atomic(&path, &new).unwrap();
        prop_assert_eq!(names(folder.path()), ["rows.jsonl"]);
        prop_assert_eq!(&fs::read(&path).unwrap(), &new);
    }
}

#[cfg(target_os = "linux")]
mod processes {
    use std::process::{Command, ExitStatus};
    use std::time::Duration;

    use super::*;

    const PATH: &str = "ZEROSEARCH_FILES_TEST_PATH";
    const BYTES: &str = "ZEROSEARCH_FILES_TEST_BYTES";

    /// This test binary again, as a process that only runs [`child`], behind a line of shell.
    fn spawn(shell: &str, path: &Path, bytes: &str) -> std::process::Child {
        let binary = std::env::current_exe().unwrap();
        Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$0\" --exact processes::child --nocapture")])
            .arg(binary)
            .env(PATH, path)
            .env(BYTES, bytes)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    fn run(shell: &str, path: &Path, bytes: usize) -> ExitStatus {
        spawn(shell, path, &bytes.to_string()).wait().unwrap()
    }

    /// Nothing by itself. Started by the tests below, it writes `BYTES` bytes, appends rows until that fails, or writes one
    /// content after the other for ever.
    #[test]
    fn child() {
        let (Ok(path), Ok(bytes)) = (std::env::var(PATH), std::env::var(BYTES)) else { return };
        match bytes.parse::<usize>() {
            Ok(bytes) => write_atomic(path, &vec![b'n'; bytes]).unwrap(),
            Err(_) if bytes == "rows" => {
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                while append(&mut file, &path, b"a row of some length\n").is_ok() {}
            }
            Err(_) => loop {
                (0..=u8::MAX).for_each(|letter| write_atomic(&path, &vec![letter; 100_000]).unwrap());
            },
        }
    }

    /// A limit on the size of a file is hit at a byte: as an error like that of a full disk where the signal is
    /// ignored, as death where it is not.
    #[test]
    fn a_limit_within_the_file_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write_atomic(&path, b"old").unwrap();
        // Blocks are of 512 bytes or of 1024, depending on the shell.
        for (bytes, fits) in [(1, true), (8 * 512, true), (8 * 1024 + 1, false), (20_000, false)] {
            let ignored = run("trap '' XFSZ; ulimit -c 0; ulimit -f 8;", &path, bytes);
            assert_eq!(ignored.success(), fits, "{bytes} bytes");
            assert_eq!(names(folder.path()), ["state.json"], "{bytes} bytes");
            if !fits {
                assert!(!run("ulimit -c 0; ulimit -f 8;", &path, bytes).success());
            }
            let content = fs::read(&path).unwrap();
            assert!(content == if fits { vec![b'n'; bytes] } else { b"old".to_vec() }, "{bytes} bytes");
            write_atomic(&path, b"old").unwrap();
        }
    }

    #[test]
    fn a_limit_within_a_row_keeps_the_rows_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, "the first\n").unwrap();
        assert!(spawn("trap '' XFSZ; ulimit -c 0; ulimit -f 1;", &path, "rows").wait().unwrap().success());
        let text = fs::read_to_string(&path).unwrap();
        let mut rows = text.lines();
        assert_eq!(rows.next(), Some("the first"));
        assert!(rows.clone().count() > 10 && text.ends_with('\n'));
        assert!(rows.all(|row| row == "a row of some length"), "{text}");
    }

    #[test]
    fn a_process_killed_at_any_moment_leaves_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for kill in 0..20u64 {
            write_atomic(&path, b"old").unwrap();
            let mut child = spawn("", &path, "for ever");
            std::thread::sleep(Duration::from_millis(5 + 3 * kill));
            child.kill().unwrap();
            child.wait().unwrap();
            let content = fs::read(&path).unwrap();
            let whole = content.len() == 100_000 && content.iter().all(|byte| *byte == content[0]);
            assert!(content == b"old" || whole, "{} bytes", content.len());
        }
    }
}

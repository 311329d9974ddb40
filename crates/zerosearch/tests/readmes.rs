//! Every crate's README is the documentation of its `lib.rs`.
//!
//! `UPDATE_READMES=1 cargo test --workspace --test readmes` writes them.

use std::fs;
use std::path::Path;

use regex::Regex;

/// The `//!` lines as Markdown: links to items are plain code, examples are Rust, hidden lines of theirs are left out.
fn readme(package: &str, source: &str) -> String {
    let link = Regex::new(r"\[(`[^`]+`)\](\([^)]*\))?").unwrap();
    let mut text = format!("# {package}\n\n");
    let mut in_code = false;
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("```") {
            text += if in_code { "```\n" } else { "```rust\n" };
            in_code = !in_code;
        } else if !in_code {
            text += &format!("{}\n", link.replace_all(line, "$1"));
        } else if line != "#" && !line.starts_with("# ") {
            text += &format!("{line}\n");
        }
    }
    text
}

#[test]
fn every_crate_has_its_documentation_as_readme() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for entry in fs::read_dir(crates).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let package = if name == "zerosearch" { name } else { format!("zerosearch-{name}") };
        let expected = readme(&package, &fs::read_to_string(folder.join("src/lib.rs")).unwrap());
        let path = folder.join("README.md");
        if std::env::var_os("UPDATE_READMES").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "{}: write it anew with UPDATE_READMES=1", path.display());
    }
}

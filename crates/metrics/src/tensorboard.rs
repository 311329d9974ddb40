//! TensorBoard event files, written by hand: three message types do not need a protobuf library.
//!
//! Formats: `tensorflow/core/util/event.proto`, `summary.proto`, and TFRecord framing from
//! `tensorflow/core/lib/io/record_writer.h`.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use zerosearch_files::{FileError, append};

use crate::{Metrics, MetricsError, Sink};

/// Writes scalars that TensorBoard shows.
///
/// Files are called `events.out.tfevents.NNNNNNNNNN.zerosearch`, numbered from 0: each sink starts the next
/// unused number, and TensorBoard reads the files of a folder in that order as one run.
pub struct TensorBoardSink {
    path: PathBuf,
    file: File,
    wall_time: Box<dyn FnMut() -> f64 + Send>,
}

impl TensorBoardSink {
    /// Starts a new run in a folder, which is created if need be. What an older run left there is hidden by TensorBoard.
    ///
    /// `wall_time` stamps the events, in seconds since 1970: [`unix_seconds`], or something that repeats.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn create(
        folder: impl AsRef<Path>,
        wall_time: impl FnMut() -> f64 + Send + 'static,
    ) -> Result<Self, MetricsError> {
        Self::start(folder.as_ref(), 0, wall_time)
    }

    /// Goes on with a run from `step` on: what the older files of this sink say of that step and later ones is cut off, since it
    /// comes again, and so is an event that was cut short. The new file opens with a session start, by which a TensorBoard
    /// that has read them already drops those steps.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn resume(
        folder: impl AsRef<Path>,
        step: u64,
        wall_time: impl FnMut() -> f64 + Send + 'static,
    ) -> Result<Self, MetricsError> {
        let folder = folder.as_ref();
        for number in 0.. {
            let path = file_path(folder, number);
            if !path.exists() {
                break;
            }
            cut(&path, step)?;
        }
        Self::start(folder, step, wall_time)
    }

    fn start(folder: &Path, step: u64, wall_time: impl FnMut() -> f64 + Send + 'static) -> Result<Self, MetricsError> {
        fs::create_dir_all(folder).map_err(FileError::write(folder))?;
        let (path, file) = create_next(folder)?;
        let mut sink = Self { path, file, wall_time: Box::new(wall_time) };
        sink.event(0, &bytes_field(3, b"brain.Event:2"))?;
        // SessionLog { status: START }
        sink.event(step, &bytes_field(7, &varint_field(1, 1)))?;
        Ok(sink)
    }

    /// The file that this sink writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn event(&mut self, step: u64, what: &[u8]) -> Result<(), MetricsError> {
        let mut event = vec![0x09]; // field 1, wall_time, 64 bit
        event.extend((self.wall_time)().to_le_bytes());
        event.extend(varint_field(2, step));
        event.extend(what);
        Ok(append(&mut self.file, &self.path, &record(&event))?)
    }
}

impl Sink for TensorBoardSink {
    /// One event with all scalars, as 32-bit floats. NaN and infinities are written as such.
    fn log(&mut self, step: u64, metrics: &Metrics) -> Result<(), MetricsError> {
        let mut summary = Vec::new();
        for (name, value) in metrics.iter() {
            let mut scalar = bytes_field(1, name.as_bytes());
            scalar.push(0x15); // field 2, simple_value, 32 bit
            scalar.extend((value as f32).to_le_bytes());
            summary.extend(bytes_field(1, &scalar));
        }
        self.event(step, &bytes_field(5, &summary))
    }

    fn flush(&mut self) -> Result<(), MetricsError> {
        Ok(self.file.sync_data().map_err(FileError::write(&self.path))?)
    }
}

/// Seconds since 1970 by the system's clock.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("events.out.tfevents.{number:010}.zerosearch"))
}

/// Ends a file of this sink before the first event that is broken or has figures of `step` or a later one.
fn cut(path: &Path, step: u64) -> Result<(), MetricsError> {
    let bytes = fs::read(path).map_err(FileError::read(path))?;
    let mut kept = 0;
    while let Some(event) = first_event(&bytes[kept..]) {
        if figures_step(event).is_some_and(|of| of >= step) {
            break;
        }
        kept += event.len() + FRAME;
    }
    if kept < bytes.len() {
        let file = OpenOptions::new().write(true).open(path).map_err(FileError::write(path))?;
        file.set_len(kept as u64).and_then(|()| file.sync_all()).map_err(FileError::write(path))?;
    }
    Ok(())
}

/// The event that a stretch of records begins with; `None` where it is broken or there is none.
fn first_event(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let event = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (checksum, _) = rest[event.len()..].split_first_chunk::<4>()?;
    (masked_crc(event) == u32::from_le_bytes(*checksum)).then_some(event)
}

/// The step of an event as [`TensorBoardSink`] lays it out, if it holds figures.
fn figures_step(event: &[u8]) -> Option<u64> {
    // Wall time in nine bytes, then field 2, the step.
    let mut rest = event.get(9..)?.strip_prefix(&[0x10])?.iter();
    let mut step = 0;
    for (index, byte) in rest.by_ref().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            break;
        }
    }
    // Field 5: a summary.
    (rest.next() == Some(&0x2a)).then_some(step)
}

/// The first number that no file has yet. `create_new` makes two sinks at once safe.
fn create_next(folder: &Path) -> Result<(PathBuf, File), MetricsError> {
    let mut number = 0_u64;
    loop {
        let path = file_path(folder, number);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(FileError::write(path)(error).into()),
        }
    }
}

/// Bytes of a record beside its data: see [`record`].
const FRAME: usize = 16;

/// TFRecord: length, its checksum, the data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + FRAME);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted as TFRecord wants it (`tensorflow/core/lib/hash/crc32c.h`).
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint_field(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    bytes.extend(varint(value));
    bytes
}

fn bytes_field(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    bytes.extend(varint(value.len() as u64));
    bytes.extend(value);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        // As serialised by `tensorboard.compat.proto.event_pb2.Event` of the `tensorboard` package.
        let dir = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(dir.path().join("tb"), || 1.5).unwrap();
        let header = fs::read(sink.path()).unwrap().len();
        sink.log(300, &[("a/b", 0.25)].into_iter().collect()).unwrap();
        let bytes = fs::read(sink.path()).unwrap();
        let data = b"\x09\0\0\0\0\0\0\xf8\x3f\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03a/b\x15\0\0\x80\x3e";
        assert_eq!(bytes[header..header + 8], (data.len() as u64).to_le_bytes());
        assert_eq!(bytes[header + 12..bytes.len() - 4], *data);
    }

    /// The steps whose figures the files of a folder hold, in the order in which TensorBoard reads them.
    fn steps(folder: &Path) -> Vec<u64> {
        let mut steps = Vec::new();
        for path in (0..).map(|number| file_path(folder, number)).take_while(|path| path.exists()) {
            let bytes = fs::read(path).unwrap();
            let mut rest = bytes.as_slice();
            while let Some(event) = first_event(rest) {
                steps.extend(figures_step(event));
                rest = &rest[event.len() + FRAME..];
            }
        }
        steps
    }

    fn log(sink: &mut TensorBoardSink, steps: impl IntoIterator<Item = u64>) {
        for step in steps {
            sink.log(step, &[("a", step as f64)].into_iter().collect()).unwrap();
        }
    }

    #[test]
    fn after_a_resume_every_step_is_there_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        log(&mut TensorBoardSink::resume(dir.path(), 1, || 0.0).unwrap(), 1..=200);
        // It was killed after step 200, and its newest checkpoint is of step 150.
        log(&mut TensorBoardSink::resume(dir.path(), 151, || 0.0).unwrap(), 151..=160);
        log(&mut TensorBoardSink::resume(dir.path(), 131, || 0.0).unwrap(), 131..=300);
        assert_eq!(steps(dir.path()), (1..=300).collect::<Vec<u64>>());
        // A new run hides the old one by its session start, and leaves it.
        log(&mut TensorBoardSink::create(dir.path(), || 0.0).unwrap(), 1..=2);
        assert_eq!(steps(dir.path()).len(), 302);
    }

    #[test]
    fn an_event_that_was_cut_short_anywhere_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::resume(dir.path(), 1, || 0.0).unwrap();
        log(&mut sink, 1..=2);
        let bytes = fs::read(sink.path()).unwrap();
        log(&mut sink, [3]);
        let whole = fs::read(sink.path()).unwrap();
        for cut_at in bytes.len()..whole.len() {
            for tail in [&[][..], &[0; 30]] {
                fs::write(sink.path(), [&whole[..cut_at], tail].concat()).unwrap();
                cut(sink.path(), 9).unwrap();
                assert!(fs::read(sink.path()).unwrap() == bytes, "{cut_at}");
            }
        }
    }

    #[test]
    fn checksum_is_the_published_one() {
        // RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8a9136aa; the mask worked out by hand.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn varints_carry() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [127]);
        assert_eq!(varint(128), [0x80, 1]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    #[test]
    fn each_sink_takes_the_next_number_and_equal_runs_write_equal_bytes() {
        let write = |folder: &Path| {
            let mut sink = TensorBoardSink::create(folder, || 0.0).unwrap();
            sink.log(1, &[("a", 1.0), ("b", f64::NAN)].into_iter().collect()).unwrap();
            (sink.path().file_name().unwrap().to_owned(), fs::read(sink.path()).unwrap())
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = write(one.path());
        assert_eq!(first, write(two.path()));
        assert_eq!(first.0, "events.out.tfevents.0000000000.zerosearch");
        assert_eq!(write(one.path()).0, "events.out.tfevents.0000000001.zerosearch");
    }
}

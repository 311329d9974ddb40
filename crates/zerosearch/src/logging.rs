//! Warnings of the crates, made visible.

use std::io::IsTerminal;

use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;
use zerosearch_kernels::InstructionSet;
use zerosearch_metrics::legible_line;

/// Shows warnings on the standard error stream, or what the variable `RUST_LOG` asks for, as in `RUST_LOG=debug`.
///
/// Quoted text, such as a server's answer, is made [`legible`](zerosearch_metrics::legible) and stays on its line.
///
/// Says there, too, if [`INSTRUCTIONS_VARIABLE`](zerosearch_kernels::INSTRUCTIONS_VARIABLE) names instructions that this processor
/// lacks. For the beginning of a `main`. In a program that has its own subscriber of `tracing` it does nothing.
pub fn init_logging() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .fmt_fields(legible_fields())
        .with_ansi(std::io::stderr().is_terminal());
    // An error says that there is a subscriber already, which is then the one to use.
    let _ = subscriber.try_init();
    let instructions = InstructionSet::current();
    match InstructionSet::from_environment() {
        Ok(_) => info!(%instructions, "kernels"),
        Err(error) => warn!("{error}; the kernels use {instructions}"),
    }
}

/// `message name=value …`, as the default format has it, without the colours inside.
fn legible_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let value = legible_line(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_server_can_neither_forge_a_line_of_the_log_nor_act_on_the_terminal() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(true)
            .without_time()
            .with_target(false)
            .fmt_fields(legible_fields());
        let said = "down\u{1b}[2J\u{9b}31m\u{202e}\r\nWARN forged";
        tracing::subscriber::with_default(subscriber.finish(), || {
            let _inside = tracing::warn_span!("search", query = %said).entered();
            warn!(endpoint = said, attempts = 2, "status 500: {said}");
        });
        let log = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let shown = "down\u{fffd}[2J\u{fffd}31m\u{fffd} WARN forged";
        assert!(log.contains(&format!("status 500: {shown} endpoint=\"down")), "{log:?}");
        assert!(log.contains(&format!("query={shown}")) && log.contains("attempts=2"), "{log:?}");
        assert_eq!(log.lines().count(), 1, "{log:?}");
        // The colours of the level and the span are the only sequences.
        let sequences: Vec<&str> =
            log.split('\u{1b}').skip(1).map(|rest| &rest[..rest.find('m').unwrap() + 1]).collect();
        assert!(sequences.iter().all(|sequence| sequence.len() <= 4 && sequence.starts_with('[')), "{sequences:?}");
        assert!(!log.contains(['\u{9b}', '\u{202e}', '\r']), "{log:?}");
    }
}

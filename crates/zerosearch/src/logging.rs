//! Warnings of the crates, made visible.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Shows warnings on the standard error stream, or what the variable `RUST_LOG` asks for, as in `RUST_LOG=debug`.
///
/// For the beginning of a `main`. In a program that has its own subscriber of `tracing` it does nothing.
pub fn init_logging() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error says that there is a subscriber already, which is then the one to use.
    let _ = subscriber.try_init();
}

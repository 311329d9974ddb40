//! Warnings of the crates, made visible.

use std::io::IsTerminal;

use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use zerosearch_kernels::InstructionSet;

/// Shows warnings on the standard error stream, or what the variable `RUST_LOG` asks for, as in `RUST_LOG=debug`.
///
/// Says there, too, if [`INSTRUCTIONS_VARIABLE`](zerosearch_kernels::INSTRUCTIONS_VARIABLE) names instructions that this processor
/// lacks. For the beginning of a `main`. In a program that has its own subscriber of `tracing` it does nothing.
pub fn init_logging() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error says that there is a subscriber already, which is then the one to use.
    let _ = subscriber.try_init();
    let instructions = InstructionSet::current();
    match InstructionSet::from_environment() {
        Ok(_) => info!(%instructions, "kernels"),
        Err(error) => warn!("{error}; the kernels use {instructions}"),
    }
}

//! A tiny checkpoint of every family, made by `tests/tiny/gen_tiny_models.py`.

use std::path::{Path, PathBuf};

/// Their folders' names.
pub(crate) const FAMILIES: [&str; 4] = ["llama-mha-sharded", "llama32-tied-ropescaled", "qwen2-tied", "qwen3-tied"];

/// Path of a family's folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny").join(name)
}

//! The whole method.
fn main() {}

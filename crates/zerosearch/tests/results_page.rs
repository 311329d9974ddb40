//! The page of results is the one that its files give.

use std::fs;
use std::path::Path;

use zerosearch::cost::Prices;
use zerosearch::paper_tables::{Remarks, Results, page};

#[test]
fn the_page_of_results_is_that_of_its_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cells = Results::at(root.join("docs/results")).cells().unwrap();
    let remarks = Remarks::read(root.join("docs/results/remarks.toml")).unwrap();
    let prices = Prices::read(root.join("examples/prices.toml")).unwrap();
    let expected = page(&cells, &remarks, &prices).unwrap();
    let found = fs::read_to_string(root.join("docs/src/results.md")).unwrap();
    assert!(
        found == expected,
        "write docs/src/results.md anew: cargo run --release --example paper_tables -- --report"
    );
}

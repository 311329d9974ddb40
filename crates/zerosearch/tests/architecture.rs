//! The crates' arrows and the list of crates without Burn, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Dependencies of each crate among ours. Another arrow is a decision: write it down in `docs/src/architecture.md` and here.
const ARROWS: [(&str, &[&str]); 23] = [
    ("trajectory", &[]),
    ("curriculum", &[]),
    ("files", &[]),
    ("metrics", &["files"]),
    ("http", &[]),
    ("kernels", &[]),
    ("grammar", &[]),
    ("reward", &["grammar"]),
    ("text", &["files", "grammar", "trajectory"]),
    ("generate", &["trajectory"]),
    ("data", &["files"]),
    ("search", &["data", "files", "generate", "http"]),
    ("remote", &["generate", "http"]),
    ("server", &["curriculum", "generate", "search"]),
    ("rollout", &["curriculum", "generate", "grammar", "search", "text", "trajectory"]),
    ("eval", &["data", "files", "generate", "grammar", "metrics", "reward", "rollout", "search", "text"]),
    ("algorithms", &[]),
    ("lm", &["files", "generate", "kernels", "text"]),
    ("simulator", &["data", "files", "generate", "lm", "reward", "search", "text"]),
    (
        "train",
        &[
            "algorithms",
            "curriculum",
            "data",
            "files",
            "generate",
            "grammar",
            "lm",
            "metrics",
            "reward",
            "rollout",
            "search",
            "text",
        ],
    ),
    ("world", &["data"]),
    ("nursery", &["data", "generate", "grammar", "lm", "search", "simulator", "text", "world"]),
    (
        "zerosearch",
        &[
            "algorithms",
            "curriculum",
            "data",
            "eval",
            "files",
            "generate",
            "grammar",
            "http",
            "kernels",
            "lm",
            "metrics",
            "nursery",
            "remote",
            "reward",
            "rollout",
            "search",
            "server",
            "simulator",
            "text",
            "train",
            "trajectory",
            "world",
        ],
    ),
];

/// `simulator` and `nursery` have Burn through `lm` alone.
const WITH_BURN: [&str; 5] = ["kernels", "lm", "algorithms", "train", "zerosearch"];

/// Normal dependencies of each of our crates, by folder name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    metadata
        .packages
        .iter()
        .filter(|package| package.manifest_path.as_str().contains("/crates/"))
        .map(|package| {
            let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
            let folder = package.manifest_path.parent().unwrap().file_name().unwrap().to_string();
            (folder, normal.map(|dependency| dependency.name.to_string()).collect())
        })
        .collect()
}

#[test]
fn the_arrows_are_those_of_the_table() {
    let found = dependencies();
    let names: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), names, "crates and table differ");
    for (name, expected) in ARROWS {
        let ours: Vec<&str> = found[name].iter().filter_map(|need| need.strip_prefix("zerosearch-")).collect();
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn the_arrows_have_no_circle() {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<_> = ARROWS.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(name, needs)| {
            let ready = needs.iter().all(|need| done.contains(need));
            if ready {
                done.insert(name);
            }
            !ready
        });
        assert!(left.len() < before, "a circle among {:?}", left.iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
}

#[test]
fn crates_without_burn_stay_so() {
    let found = dependencies();
    for (name, needs) in &found {
        let burn = needs.iter().any(|need| need == "burn" || need.starts_with("burn-"));
        assert_eq!(burn, WITH_BURN.contains(&name.as_str()), "{name}");
        // Nor do they get it through another of ours.
        if !WITH_BURN.contains(&name.as_str()) && !["simulator", "nursery"].contains(&name.as_str()) {
            let through =
                needs.iter().filter_map(|need| need.strip_prefix("zerosearch-")).find(|need| WITH_BURN.contains(need));
            assert_eq!(through, None, "{name}");
        }
    }
}

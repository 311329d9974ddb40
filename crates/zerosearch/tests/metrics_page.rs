//! The page on metrics names those that the code logs, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Crates whose string literals of the form `group/name` are metrics.
const CRATES: [&str; 5] = ["algorithms", "rollout", "train", "eval", "lm"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names in the first column of the page's tables, braces expanded, `<placeholders>` as `*`.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/src/metrics.md")).unwrap();
    let (code, placeholder) = (Regex::new("`([^`]+)`").unwrap(), Regex::new("<[^>]+>").unwrap());
    let first_column = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = first_column.flat_map(|cell| {
        let cell = format!("`{cell}");
        let names: Vec<String> = code.captures_iter(&cell).map(|found| found[1].to_string()).collect();
        names
    });
    names.flat_map(|name| expanded(&placeholder.replace_all(&name, "*"))).collect()
}

fn expanded(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_string()] };
    let (choices, after) = rest.split_once('}').unwrap();
    choices.split(',').flat_map(|choice| expanded(&format!("{before}{choice}{after}"))).collect()
}

/// The metrics in the code, `{arguments}` of formats as `*`. Tests of a module come last in its file and are left out.
fn logged() -> BTreeSet<String> {
    let literal = Regex::new(r#""([a-z][a-z0-9_]*(?:/[a-z0-9_{}]+)+)""#).unwrap();
    let argument = Regex::new(r"\{[a-z_]*\}").unwrap();
    let mut folders: Vec<PathBuf> = CRATES.iter().map(|name| root().join("crates").join(name).join("src")).collect();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                found
                    .extend(literal.captures_iter(line).map(|found| argument.replace_all(&found[1], "*").into_owned()));
            }
        }
    }
    found
}

/// Whether a name in the code is the documented one, or stands for its mean, maximum and minimum. An argument at the end of a
/// name may hold several parts.
fn is(logged: &str, documented: &str) -> bool {
    let spread = ["mean", "max", "min"].iter().any(|of| documented.strip_suffix(of) == Some(&format!("{logged}/")));
    let (left, right): (Vec<&str>, Vec<&str>) = (logged.split('/').collect(), documented.split('/').collect());
    let length = left.len() == right.len() || (left.len() < right.len() && left.last() == Some(&"*"));
    let same = length && left.iter().zip(&right).all(|(l, r)| l == r || *l == "*" || *r == "*");
    spread || same
}

#[test]
fn a_metric_and_a_row_of_the_page_imply_each_other() {
    let (logged, documented) = (logged(), documented());
    assert!(logged.len() > 60 && documented.len() > 70, "{} logged, {} documented", logged.len(), documented.len());
    let missing: Vec<&String> = logged.iter().filter(|name| !documented.iter().any(|row| is(name, row))).collect();
    assert!(missing.is_empty(), "docs/src/metrics.md lacks {missing:?}");
    let stale: Vec<&String> = documented.iter().filter(|row| !logged.iter().any(|name| is(name, row))).collect();
    assert!(stale.is_empty(), "docs/src/metrics.md has metrics that are not logged: {stale:?}");
}

//! Which keys of a table go together.

/// A key of a table, and whether it was given.
pub(super) type Given = (&'static str, bool);

/// Refuses a key that was given and is not among those that `with` takes. The message begins with the key, so that its line is found.
pub(super) fn refuse_misplaced(given: &[Given], taken: &[&str], with: &str) -> Result<(), String> {
    match given.iter().find(|(key, is_given)| *is_given && !taken.contains(key)) {
        Some((key, _)) => Err(format!("`{key}` does not go with {with}, which takes {}", listed(taken))),
        None => Ok(()),
    }
}

/// The value of a key that must be there.
pub(super) fn required<T>(value: Option<T>, key: &str, with: &str, example: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("`{key}` is missing: {with} needs it, for example {key} = {example}"))
}

fn listed(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    if keys.is_empty() { "no other key".into() } else { keys.join(", ") }
}

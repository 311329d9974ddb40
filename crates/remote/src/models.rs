//! The models that a server offers.

use serde::Deserialize;
use zerosearch_generate::GenerateError;
use zerosearch_http::{JsonClient, RetryPolicy, address};

use crate::wire::remote;

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// The names of the models that an OpenAI-compatible server offers (`GET /v1/models`), empty where it keeps no such list. `url` is
/// read as [`OpenAiServer`](crate::OpenAiServer) reads it.
///
/// It is also the cheapest way to learn before a run whether the server is there and takes the key.
///
/// # Errors
/// [`GenerateError::Remote`] when the server does not answer, refuses the key, or answers something else than a list.
///
/// ```
/// let retry = zerosearch_remote::RetryPolicy { attempts: 1, ..Default::default() };
/// // No server listens on this port.
/// let error = zerosearch_remote::served_models("http://127.0.0.1:9", None, retry).unwrap_err();
/// assert!(error.to_string().starts_with("http://127.0.0.1:9/v1/models: "));
/// ```
pub fn served_models(url: &str, key: Option<&str>, retry: RetryPolicy) -> Result<Vec<String>, GenerateError> {
    let url = address(url, |path| {
        let path = path.trim_end_matches('/');
        let pasted = path.strip_suffix("/chat/completions").or_else(|| path.strip_suffix("/completions"));
        format!("{}/models", pasted.unwrap_or(if path.is_empty() { "/v1" } else { path }))
    });
    let mut client = JsonClient::new(retry);
    if let Some(key) = key {
        client = client.with_header("Authorization", format!("Bearer {}", key.trim()));
    }
    match client.get::<List>(&url, &[]) {
        Ok(List { data }) => Ok(data.into_iter().map(|entry| entry.id).collect()),
        Err(error) if matches!(error.status(), Some(404 | 405)) => Ok(Vec::new()),
        Err(mut error) => {
            let hint = match (error.status(), key) {
                (Some(401 | 403), None) => "; no key was given",
                (Some(401 | 403), Some(_)) => "; is the key right?",
                _ => "",
            };
            error.message.push_str(hint);
            Err(remote(error))
        }
    }
}

//! The documents of a page of web results, as SerpAPI, Serper and Google's Custom Search write one.

use serde_json::{Map, Value};

use crate::Document;

/// The names of the list of results.
const RESULTS: [&str; 3] = ["organic_results", "organic", "items"];

/// The names of what stands above and beside the results, in the order in which they are taken.
const BOXES: [&str; 6] =
    ["answer_box", "answerBox", "knowledge_graph", "knowledgeGraph", "related_questions", "peopleAlsoAsk"];

/// The names of what a page has also where nothing was found.
const FRAME: [&str; 7] = [
    "error",
    "search_metadata",
    "search_parameters",
    "search_information",
    "searchParameters",
    "searchInformation",
    "queries",
];

/// The documents of a page: its results or, where it has none, its boxes. None where the answer is no page.
pub(crate) fn documents(page: &Value) -> Option<Vec<Document>> {
    let known = |name: &&str| page.get(*name).is_some();
    if page.as_object().is_none_or(|fields| !fields.is_empty())
        && !RESULTS.iter().chain(&BOXES).chain(&FRAME).any(known)
    {
        return None;
    }
    let results: Vec<Document> = RESULTS.iter().flat_map(|name| objects(page, name)).filter_map(result).collect();
    if !results.is_empty() {
        return Some(results);
    }
    Some(BOXES.iter().flat_map(|name| objects(page, name)).filter_map(boxed).collect())
}

/// The objects under a name that holds one, or a list of them.
fn objects<'a>(page: &'a Value, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    let (list, one) = match page.get(name) {
        Some(Value::Array(items)) => (items.as_slice(), None),
        other => (&[][..], other),
    };
    list.iter().chain(one).filter_map(Value::as_object)
}

/// A result without a snippet still tells its title; one without either tells nothing.
fn result(fields: &Map<String, Value>) -> Option<Document> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(String::from);
    let (title, snippet) = (text("title"), text("snippet"));
    if title.is_none() && snippet.is_none() {
        return None;
    }
    Some(Document { id: text("link"), title, contents: snippet.unwrap_or_default(), score: None })
}

/// The words of a box: its answer, its snippet and description, else the words that it sets off, its list, and the facts under
/// names of their own (`born`, `temperature`, …).
fn boxed(fields: &Map<String, Value>) -> Option<Document> {
    let text = |name: &str| fields.get(name).and_then(words);
    let mut parts: Vec<String> = Vec::new();
    let mut say = |part: String| {
        if !parts.iter().any(|said| said.contains(&part)) {
            parts.push(part);
        }
    };
    ["answer", "result", "snippet", "description"].into_iter().filter_map(text).for_each(&mut say);
    ["snippet_highlighted_words", "snippetHighlighted", "list"].into_iter().filter_map(text).for_each(&mut say);
    let attributes = fields.get("attributes").and_then(Value::as_object);
    for (name, value) in fields.iter().chain(attributes.into_iter().flatten()) {
        if let Some(value) = words(value).filter(|value| is_fact(name, value)) {
            say(format!("{}: {value}", name.replace('_', " ")));
        }
    }
    let id = ["link", "website", "descriptionLink"].into_iter().find_map(text);
    let id = id.or_else(|| words(fields.get("source")?.get("link")?));
    let title = text("title").or_else(|| text("question"));
    if parts.is_empty() && title.is_none() {
        return None;
    }
    Some(Document { id, title, contents: parts.join(" "), score: None })
}

/// A text, a number, or a list of such.
fn words(value: &Value) -> Option<String> {
    let words = match value {
        Value::String(text) => text.trim().to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(words).collect::<Option<Vec<_>>>()?.join("; "),
        _ => return None,
    };
    (!words.is_empty()).then_some(words)
}

/// Whether a field is about the world, and not about the page.
fn is_fact(name: &str, value: &str) -> bool {
    const OF_THE_PAGE: [&str; 18] = [
        "answer",
        "result",
        "snippet",
        "description",
        "snippet_highlighted_words",
        "snippetHighlighted",
        "list",
        "title",
        "question",
        "type",
        "entity_type",
        "kgmid",
        "position",
        "displayed_link",
        "displayedLink",
        "website",
        "source",
        "date",
    ];
    !OF_THE_PAGE.contains(&name)
        && !name.to_lowercase().ends_with("link")
        && !value.starts_with("http")
        && !value.starts_with("data:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn boxes_stand_in_for_results() {
        let link = "https://en.example.org/Chad";
        for (page, expected) in [
            (
                json!({"answer_box": {"type": "organic_result", "title": "Chad", "answer": "N'Djamena", "link": link, "thumbnail": "https://x"}}),
                vec!["Chad: N'Djamena"],
            ),
            (
                json!({"answerBox": {"title": "Chad", "snippet": "Its capital is N'Djamena.", "snippetHighlighted": ["N'Djamena"], "date": "2021"}, "organic": []}),
                vec!["Chad: Its capital is N'Djamena."],
            ),
            (
                json!({"answer_box": {"snippet_highlighted_words": ["N'Djamena", "Fort-Lamy"]}}),
                vec!["N'Djamena; Fort-Lamy"],
            ),
            (
                json!({"answer_box": {"title": "Cities", "list": ["N'Djamena", "Moundou"]}}),
                vec!["Cities: N'Djamena; Moundou"],
            ),
            (json!({"answer_box": {"type": "calculator_result", "result": 4}}), vec!["4"]),
            (
                json!({"answer_box": {"type": "weather_result", "temperature": "31", "unit": "Celsius"}}),
                vec!["temperature: 31 unit: Celsius"],
            ),
            (json!({"answer_box": [{"answer": "a"}, {"answer": "b"}, 7]}), vec!["a", "b"]),
            (
                json!({"knowledge_graph": {"title": "Chad", "kgmid": "/m/01p1b", "entity_type": "country", "description": "A country.", "capital": "N'Djamena", "capital_links": [{"text": "x"}], "source": {"link": link}}}),
                vec!["Chad: A country. capital: N'Djamena"],
            ),
            (
                json!({"knowledgeGraph": {"title": "Chad", "type": "Country", "attributes": {"Capital": "N'Djamena"}, "imageUrl": "https://x"}}),
                vec!["Chad: Capital: N'Djamena"],
            ),
            (
                json!({"related_questions": [{"question": "What is its capital?", "snippet": "N'Djamena.", "link": link}], "organic_results": null}),
                vec!["What is its capital?: N'Djamena."],
            ),
            (
                json!({"peopleAlsoAsk": [{"question": "Q?", "snippet": "S"}], "answerBox": {"answer": "A"}}),
                vec!["A", "Q?: S"],
            ),
            // Results that say nothing are none.
            (json!({"organic": [{"link": "x"}, null, "y", {"title": null}], "answerBox": {"answer": "A"}}), vec!["A"]),
            // Boxes beside results are not taken.
            (json!({"organic": [{"snippet": "S", "date": null}], "answerBox": {"answer": "A"}}), vec!["S"]),
            (
                json!({"searchInformation": {"totalResults": "0"}, "spelling": {"suggestion": "chad"}, "searchParameters": {}}),
                vec![],
            ),
            (json!({"organic_results": null}), vec![]),
            (json!({"answer_box": {"type": "map", "link": link}, "knowledge_graph": null}), vec![]),
            (json!({}), vec![]),
        ] {
            let found = documents(&page).unwrap();
            let texts: Vec<_> = found.iter().map(|document| document.text().into_owned()).collect();
            assert_eq!(texts, expected, "{page}");
        }
        let page = json!({"answer_box": {"answer": "A", "link": link}});
        assert_eq!(documents(&page).unwrap()[0].id.as_deref(), Some(link));
    }

    #[test]
    fn other_objects_are_no_pages() {
        for answer in [json!({"hello": "world"}), json!({"status": "ok", "version": 2})] {
            assert_eq!(documents(&answer), None, "{answer}");
        }
    }
}

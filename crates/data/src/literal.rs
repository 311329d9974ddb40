//! Lists and objects that were written into a text: as JSON, or as Python prints them.

use serde_json::{Map, Number, Value};

/// The list or object that the whole text is: `["a", "b"]`, `['a', 'b']`, `('a',)`, `{'target': ['a']}`,
/// or as numpy prints, `['a' 'b']` and `array(['a', 'b'], dtype=object)`. `None` for any other text.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{', '(']) && !text.starts_with(ARRAY) {
        return None;
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut python = Python { rest: text, depth: 0 };
    let value = python.value()?;
    python.rest.is_empty().then_some(value)
}

const ARRAY: &str = "array(";

/// Deeper nesting is no row of questions, and would exhaust the stack.
const DEEPEST: usize = 32;

struct Python<'a> {
    rest: &'a str,
    depth: usize,
}

impl Python<'_> {
    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let value = if self.eat(ARRAY) {
            let value = self.value()?;
            // `, dtype=object`, `, dtype='<U4'`
            let (_, rest) = self.rest.split_once(')')?;
            self.rest = rest;
            value
        } else if self.eat("[") {
            self.list(']')?
        } else if self.eat("(") {
            self.list(')')?
        } else if self.eat("{") {
            self.object()?
        } else if self.rest.starts_with(['\'', '"']) {
            Value::String(self.text()?)
        } else {
            self.word()?
        };
        self.depth -= 1;
        self.rest = self.rest.trim_start();
        Some(value)
    }

    fn list(&mut self, end: char) -> Option<Value> {
        let mut list = Vec::new();
        while !self.eat_char(end) {
            list.push(self.value()?);
            // numpy prints no commas.
            self.eat(",");
        }
        Some(Value::Array(list))
    }

    fn object(&mut self) -> Option<Value> {
        let mut object = Map::new();
        while !self.eat_char('}') {
            let Value::String(key) = self.value()? else { return None };
            if !self.eat(":") {
                return None;
            }
            object.insert(key, self.value()?);
            self.eat(",");
        }
        Some(Value::Object(object))
    }

    fn text(&mut self) -> Option<String> {
        let mut characters = self.rest.chars();
        let quote = characters.next()?;
        let mut text = String::new();
        loop {
            match characters.next()? {
                c if c == quote => break,
                '\\' => match characters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    c @ ('x' | 'u' | 'U') => {
                        let length = if c == 'x' {
                            2
                        } else if c == 'u' {
                            4
                        } else {
                            8
                        };
                        let digits = characters.as_str().get(..length)?;
                        text.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                        characters = characters.as_str()[length..].chars();
                    }
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
        self.rest = characters.as_str();
        Some(text)
    }

    fn word(&mut self) -> Option<Value> {
        let end =
            self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "None" | "null" | "nan" | "NaN" => Some(Value::Null),
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            _ => {
                let whole = word.parse::<i64>().ok().map(Number::from);
                let number = whole.or_else(|| word.parse::<f64>().ok().and_then(Number::from_f64))?;
                Some(Value::Number(number))
            }
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token).map(str::trim_start);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn eat_char(&mut self, token: char) -> bool {
        self.eat(token.encode_utf8(&mut [0; 4]))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_objects_as_json_and_python_write_them() {
        for (text, expected) in [
            (r#"["a", "b\"c", 1, null]"#, json!(["a", "b\"c", 1, null])),
            (r#"['a', "b's", 'c\'d', 1960.0, None, True]"#, json!(["a", "b's", "c'd", 1960.0, null, true])),
            (" ('a',)\n", json!(["a"])),
            ("['a' 'b'\n 'c']", json!(["a", "b", "c"])),
            ("array(['a', 'b'], dtype=object)", json!(["a", "b"])),
            ("{'target': array(['é', '\\u00e9\\x41'], dtype='<U2'), 'n': {}}", json!({"target": ["é", "éA"], "n": {}})),
            ("[]", json!([])),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_left_alone() {
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "Lima",
            "[sic]",
            "(What's the Story)",
            "['a'] and b",
            "['a",
            "{'a'}",
            "[0, ∞)",
            "'a'",
            "\"a\"",
            "1960",
            &deep,
            "['\\u12']",
            "array(",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

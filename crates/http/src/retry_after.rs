//! The time after which a server wants to be asked again.

use std::time::{Duration, SystemTime};

use ureq::http::HeaderMap;

/// The pause that an answer names: `retry-after-ms`, `Retry-After` in seconds or as a date, else the time until a limit whose
/// remainder is 0 is lifted (`x-ratelimit-reset-requests`, `x-ratelimit-reset-tokens`, `x-ratelimit-reset`,
/// `ratelimit-reset`). None where nothing readable and positive is named.
pub(crate) fn named_pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| text(headers, name);
    let retry_after = || {
        let text = text("retry-after")?;
        let dated = self::text(headers, "date");
        seconds(text).or_else(|| {
            let then = httpdate::parse_http_date(text).ok()?;
            // The server's clock counts, where it says what that shows.
            let now = dated.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
            then.duration_since(now).ok()
        })
    };
    let limits = || {
        let exhausted = |kind: &str| {
            let remaining = text(&format!("x-ratelimit-remaining{kind}"))
                .or_else(|| text(&format!("ratelimit-remaining{kind}")))
                .and_then(|count| count.parse::<f64>().ok());
            remaining.is_some_and(|count| count <= 0.0)
        };
        let reset = |kind: &str| {
            let reset =
                text(&format!("x-ratelimit-reset{kind}")).or_else(|| text(&format!("ratelimit-reset{kind}")))?;
            units(reset).or_else(|| since(reset, now))
        };
        ["-requests", "-tokens", ""].into_iter().filter(|kind| exhausted(kind)).filter_map(reset).max()
    };
    let milliseconds = text("retry-after-ms").and_then(seconds).map(|pause| pause / 1000);
    milliseconds.or_else(retry_after).or_else(limits).filter(|pause| !pause.is_zero())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// `12`, `0.5`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Seconds from now or, where they are too many for that, since 1970.
fn since(text: &str, now: SystemTime) -> Option<Duration> {
    const YEAR_2001: Duration = Duration::from_secs(1_000_000_000);
    let given = seconds(text)?;
    if given < YEAR_2001 { Some(given) } else { (SystemTime::UNIX_EPOCH + given).duration_since(now).ok() }
}

/// `17ms`, `1.2s`, `6m0s`, `1h2m3s`.
fn units(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let factor = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::{HeaderName, HeaderValue};

    #[test]
    fn forms_in_use() {
        const NOW: u64 = 1_800_000_000;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let date = |seconds: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let (soon, past, ahead) = (date(NOW + 7), date(NOW - 7), date(NOW + 4));
        let epoch = (NOW + 9).to_string();
        for (headers, expected) in [
            (vec![("retry-after", "12")], Some(12.0)),
            (vec![("retry-after", " 0.5 ")], Some(0.5)),
            (vec![("retry-after", soon.as_str())], Some(7.0)),
            (vec![("retry-after", soon.as_str()), ("date", ahead.as_str())], Some(3.0)),
            (vec![("retry-after", "3600")], Some(3600.0)),
            (vec![("retry-after", "9"), ("retry-after-ms", "1250")], Some(1.25)),
            (vec![("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "1m0.5s")], Some(60.5)),
            (
                vec![
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-requests", "20ms"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "2s"),
                ],
                Some(2.0),
            ),
            (vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", epoch.as_str())], Some(9.0)),
            (vec![("ratelimit-remaining", "0"), ("ratelimit-reset", "5")], Some(5.0)),
            // Limits that are not the reason.
            (vec![("x-ratelimit-remaining-requests", "59"), ("x-ratelimit-reset-requests", "1s")], None),
            // Nothing to wait for.
            (vec![("retry-after", past.as_str())], None),
            (vec![("retry-after", "0")], None),
            (vec![("retry-after", "-3")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "NaN")], None),
            (vec![("retry-after", "1e400")], None),
            (vec![("retry-after", "")], None),
            (vec![], None),
        ] {
            let map = headers.iter().map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            });
            let pause = named_pause(&map.collect(), now).map(|pause| pause.as_secs_f64());
            assert_eq!(pause, expected, "{headers:?}");
        }
    }
}

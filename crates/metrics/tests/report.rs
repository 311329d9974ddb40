//! A report is one file that shows what it is given and lets no text become markup.

use proptest::prelude::*;
use zerosearch_metrics::{Author, Chart, Line, Report, ReportTrajectory, Table, TrajectorySpan, write_report};

fn report(text: &str) -> Report {
    let text = || text.to_owned();
    let line = |points| Line { name: text(), points };
    let span = |author, trained, logprob| TrajectorySpan { text: text(), author, trained, logprob };
    Report {
        title: text(),
        subtitle: text(),
        tables: vec![Table { title: text(), header: vec![text()], rows: vec![vec![text(), text()]] }],
        charts: vec![Chart {
            title: text(),
            y_label: text(),
            x_label: text(),
            lines: vec![line(vec![(1, 0.5), (2, 0.7)]), line(vec![(1, 0.1)])],
        }],
        trajectories: vec![ReportTrajectory {
            title: text(),
            facts: vec![(text(), text())],
            lists: vec![(text(), vec![text(), text()])],
            spans: vec![
                span(Author::Prompt, false, None),
                span(Author::Policy, true, Some(-0.25)),
                span(Author::Observation, false, None),
            ],
        }],
    }
}

/// The sequence of tags, without what they say: `<span class="policy">` counts, its text does not.
fn tags(html: &str) -> Vec<String> {
    html.split('<')
        .skip(1)
        .filter_map(|part| part.split_once('>'))
        .map(|(tag, _)| tag.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

proptest! {
    #[test]
    fn no_text_changes_the_markup(text in "[<>&\"'/a-z =\n-]{0,24}") {
        prop_assume!(!text.is_empty());
        prop_assert_eq!(tags(&report(&text).to_html()), tags(&report("plain").to_html()));
    }
}

#[test]
fn a_document_cannot_inject_a_script() {
    let html = report("</style><script>alert('x')</script>\" onload=\"x").to_html();
    assert!(!html.contains("<script") && !html.contains("\" onload=\"x"));
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
}

#[test]
fn a_document_can_neither_hide_nor_reorder_what_is_shown() {
    // Each of a kind: escape sequence, C1 control, bidirectional override, zero-width space, tag, line separator.
    let text = "Par\u{1b}[2J\u{9b}31m\u{202e}is\u{200b}\u{e0041}\u{2028}\r\nend";
    let html = report(text).to_html();
    let raw = ['\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}', '\u{e0041}', '\u{2028}', '\r'];
    assert_eq!(raw.into_iter().find(|character| html.contains(*character)), None);
    let shown = "Par\u{fffd}[2J\u{fffd}31m\u{fffd}is\u{fffd}\u{fffd}\u{fffd}\nend";
    assert_eq!(html.matches(shown).count(), html.matches("Par").count());
}

#[test]
fn what_one_author_wrote_is_isolated_from_the_others_and_not_in_itself() {
    let span = |text: &str, author| TrajectorySpan { text: text.into(), author, trained: true, logprob: None };
    let spans = vec![
        span("שלום", Author::Observation),
        span("<answer>", Author::Policy),
        // Tokens of one word, with a non-joiner between them.
        span("می", Author::Policy),
        span("\u{200c}خواهم", Author::Policy),
        // No letter of the policy's for this joiner to stand behind.
        span("\u{200c}", Author::Observation),
    ];
    let trajectories = vec![ReportTrajectory { spans, ..ReportTrajectory::default() }];
    let html = Report { trajectories, ..Report::default() }.to_html();
    let policy = "<span class=\"policy trained\">";
    let document = "<span class=\"observation trained\">";
    assert!(html.contains(&format!(
        "<bdi>{document}שלום</span></bdi>\
         <bdi>{policy}&lt;answer&gt;</span>{policy}می</span>{policy}\u{200c}خواهم</span></bdi>\
         <bdi>{document}\u{fffd}</span></bdi>"
    )));
}

#[test]
fn spans_carry_author_mask_and_logprob() {
    let html = report("text").to_html();
    assert!(html.contains("<span class=\"prompt\">text</span>"));
    assert!(html.contains("<span class=\"policy trained\" title=\"log-probability -0.250\">text</span>"));
    assert!(html.contains("<span class=\"observation\">text</span>"));
}

#[test]
fn the_file_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    write_report(&path, &report("text")).unwrap();
    let html = std::fs::read_to_string(&path).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    for external in ["http:", "https:", "src=", "url(", "@import", "<link", "<script"] {
        assert!(!html.contains(external), "{external}");
    }
}

#[test]
fn an_empty_report_is_a_page() {
    let html = Report { title: "Run".into(), ..Report::default() }.to_html();
    assert!(html.contains("<h1>Run</h1>") && !html.contains("<h2>"));
}

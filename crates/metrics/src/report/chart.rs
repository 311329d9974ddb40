//! Line charts as SVG, drawn by hand: axes, a grid, a line, and the figure under the pointer.

use super::html::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Readable on white, apart for colour-blind eyes.
const COLOURS: [&str; 6] = ["#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626", "#475569"];
/// With more points than this on a line, their dots would hide it.
const DOTS: usize = 60;

/// One or more lines, most often over the steps of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// The heading above it.
    pub title: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// The name of the horizontal axis; empty for steps.
    pub x_label: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name in the legend; a chart with a single line has none.
    pub name: String,
    /// Places on the horizontal axis and values, ascending. A value that is not finite leaves a gap.
    pub points: Vec<(u64, f64)>,
}

impl Chart {
    /// A chart of a single line.
    pub fn single(title: &str, y_label: &str, points: Vec<(u64, f64)>) -> Self {
        let lines = vec![Line { name: title.to_owned(), points }];
        Self { title: title.to_owned(), y_label: y_label.to_owned(), lines, ..Self::default() }
    }

    pub(super) fn to_html(&self) -> String {
        let legend: String = if self.lines.len() < 2 {
            String::new()
        } else {
            let names = self.lines.iter().zip(COLOURS.iter().cycle());
            names
                .map(|(line, colour)| format!("<span style=\"color:{colour}\">━ {}</span> ", escape(&line.name)))
                .collect()
        };
        format!(
            "<figure class=\"card\">\n<figcaption>{} <small>{}</small></figcaption>\n{}<p class=\"lines\">{legend}</p>\n</figure>\n",
            escape(&self.title),
            escape(&self.axes_label()),
            self.svg(),
        )
    }

    fn axes_label(&self) -> String {
        if self.x_label.is_empty() { self.y_label.clone() } else { format!("{} over {}", self.y_label, self.x_label) }
    }

    fn svg(&self) -> String {
        let open =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", escape(&self.title));
        let finite = || self.lines.iter().flat_map(|line| &line.points).filter(|(_, value)| value.is_finite());
        let (Some(x), Some(y)) =
            (Range::of(finite().map(|point| point.0 as f64)), Range::of(finite().map(|point| point.1)))
        else {
            return format!(
                "{open}<text class=\"none\" x=\"{}\" y=\"{}\">no data</text>\n</svg>\n",
                WIDTH / 2.0,
                HEIGHT / 2.0
            );
        };
        let (y, y_step) = y.widened();
        let plot = Plot { x, y, y_step };
        let mut svg = open + &plot.axes();
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            svg.push_str(&plot.line(line, colour, if self.x_label.is_empty() { "step" } else { &self.x_label }));
        }
        svg + "</svg>\n"
    }
}

/// The part of an axis that has points.
#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        values.fold(None, |range: Option<Self>, value| match range {
            None => Some(Self { low: value, high: value }),
            Some(range) => Some(Self { low: range.low.min(value), high: range.high.max(value) }),
        })
    }

    /// Out to whole ticks, and their distance: the lowest and the highest point each have a tick beyond them.
    fn widened(self) -> (Self, f64) {
        let flat = self.high <= self.low;
        let room = if flat { self.high.abs().max(1.0) * 0.5 } else { 0.0 };
        let (low, high) = (self.low - room, self.high + room);
        // Zero is worth showing when it is near.
        let low = if (low > 0.0 && low < 0.5 * high) || (flat && self.low >= 0.0) { 0.0 } else { low };
        let step = tick_step(high - low, 4.0);
        (Self { low: (low / step).floor() * step, high: (high / step).ceil() * step }, step)
    }

    /// Relative height of a value, from 0 to 1; the middle when all values are equal.
    fn fraction(self, value: f64) -> f64 {
        let span = self.high - self.low;
        if span > 0.0 { (value - self.low) / span } else { 0.5 }
    }

    fn ticks(self, step: f64) -> Vec<f64> {
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        (first..=last).map(|index| index as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that `span` has about `count` steps.
fn tick_step(span: f64, count: f64) -> f64 {
    let rough = span / count;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough * 0.999_999);
    step.unwrap_or(10.0 * power)
}

struct Plot {
    x: Range,
    y: Range,
    y_step: f64,
}

impl Plot {
    fn place(&self, step: f64, value: f64) -> (f64, f64) {
        (
            LEFT + self.x.fraction(step) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.fraction(value) * (HEIGHT - TOP - BOTTOM),
        )
    }

    fn axes(&self) -> String {
        let mut svg = String::new();
        for tick in self.y.ticks(self.y_step) {
            let (_, y) = self.place(self.x.low, tick);
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            ));
            svg.push_str(&format!(
                "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>\n",
                LEFT - 6.0,
                y + 3.5,
                label(tick, self.y_step)
            ));
        }
        let span = self.x.high - self.x.low;
        // Steps are whole numbers.
        let step = if span > 0.0 { tick_step(span, 6.0).max(1.0) } else { 1.0 };
        for tick in self.x.ticks(step) {
            let (x, _) = self.place(tick, self.y.low);
            svg.push_str(&format!(
                "<text class=\"x\" x=\"{x:.1}\" y=\"{}\">{}</text>\n",
                HEIGHT - 8.0,
                label(tick, step)
            ));
        }
        svg
    }

    fn line(&self, line: &Line, colour: &str, x_label: &str) -> String {
        let mut svg = String::new();
        for run in line.points.split(|(_, value)| !value.is_finite()).filter(|run| !run.is_empty()) {
            let places: Vec<String> = run
                .iter()
                .map(|(step, value)| {
                    let (x, y) = self.place(*step as f64, *value);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            svg.push_str(&format!("<polyline points=\"{}\" stroke=\"{colour}\"/>\n", places.join(" ")));
        }
        let radius = if line.points.len() <= DOTS { 2.4 } else { 1.0 };
        for (step, value) in line.points.iter().filter(|(_, value)| value.is_finite()) {
            let (x, y) = self.place(*step as f64, *value);
            let hover = escape(&format!("{}, {x_label} {step}: {value:.5}", line.name));
            // The style sheet gives the dot a wide invisible ring that catches the pointer.
            svg.push_str(&format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"><title>{hover}</title></circle>\n"
            ));
        }
        svg
    }
}

/// With as many decimals as the distance of the ticks needs.
fn label(tick: f64, step: f64) -> String {
    if tick == 0.0 {
        return "0".to_owned();
    }
    if tick.abs() >= 1e5 || step < 1e-3 {
        return format!("{tick:.1e}");
    }
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{tick:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_points() {
        for (low, high) in
            [(0.0, 1.0), (0.13, 0.87), (-3.2, 14.0), (1e-6, 3e-6), (0.5, 0.5), (0.0, 0.0), (-2.0, -2.0), (1e9, 1e9)]
        {
            let (range, step) = Range { low, high }.widened();
            let ticks = range.ticks(step);
            assert!((2..=8).contains(&ticks.len()), "{low}..{high}: {ticks:?}");
            let slack = 1e-9 * (range.high - range.low);
            assert!(ticks[0] <= low + slack && ticks[ticks.len() - 1] >= high - slack, "{low}..{high}: {ticks:?}");
        }
        assert_eq!(label(0.25, 0.05), "0.25");
        assert_eq!(label(40.0, 20.0), "40");
    }

    #[test]
    fn a_value_that_is_not_finite_leaves_a_gap() {
        let points = vec![(1, 0.1), (2, f64::NAN), (3, 0.3), (4, 0.2), (5, f64::INFINITY)];
        let svg = Chart::single("Reward", "F1", points).svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn no_points_and_one_point_are_charts_too() {
        assert!(Chart::default().svg().contains("no data"));
        assert!(Chart::single("Reward", "", vec![(1, f64::NAN)]).svg().contains("no data"));
        let svg = Chart::single("Reward", "", vec![(7, 0.5)]).svg();
        assert!(svg.contains("step 7: 0.50000") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn points_lie_inside_the_picture() {
        let chart = Chart::single("x", "", (0..500).map(|step| (step, (step as f64 / 9.0).sin() * 1e3)).collect());
        for part in chart.svg().split("cx=\"").skip(1) {
            let mut numbers = part.split('"');
            let x: f64 = numbers.next().unwrap().parse().unwrap();
            let y: f64 = numbers.nth(1).unwrap().parse().unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{x} {y}");
        }
    }
}

//! A date that a chat template can print.

/// More than this is a mistake, and could be more than there is memory.
const MOST_WIDTH: usize = 1000;
const DAYS_BEFORE_1970: i64 = 719_162;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The filling before a field that is shorter than its width.
#[derive(Clone, Copy, PartialEq)]
enum Pad {
    Zeros,
    Blanks,
    Nothing,
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Date {
    pub(crate) year: u16,
    /// From 1; names of months out of range are empty.
    pub(crate) month: u8,
    pub(crate) day: u8,
}

impl Date {
    /// Python's `strftime` at midnight, in the C locale and without a time zone, as it is on Linux: with glibc's flags (`%-d`,
    /// `%_d`, `%0e`, `%^a`, `%#p`) and widths (`%10B`). A field that there is none of is printed as it stands.
    pub(crate) fn format(self, format: &str) -> String {
        let mut text = String::new();
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            let (before, field) = rest.split_at(start);
            text.push_str(before);
            let length = match self.field(field) {
                Some((printed, length)) => {
                    text.push_str(&printed);
                    length
                }
                None => {
                    text.push('%');
                    1
                }
            };
            rest = &field[length..];
        }
        text + rest
    }

    /// The text of the field at the beginning, and the field's length.
    fn field(self, field: &str) -> Option<(String, usize)> {
        let after_flags = field[1..].trim_start_matches(['-', '_', '0', '^', '#', '+']);
        let flags = &field[1..field.len() - after_flags.len()];
        let after_width = after_flags.trim_start_matches(|c: char| c.is_ascii_digit());
        let width = &after_flags[..after_flags.len() - after_width.len()];
        let code = after_width.trim_start_matches(['E', 'O']).chars().next()?;
        let length = field.len() - after_width.trim_start_matches(['E', 'O']).len() + code.len_utf8();

        let (plain, digits) = self.plain(code)?;
        // Python fills this one in before C sees it.
        if code == 'f' && length > 2 {
            return None;
        }
        let asked = flags.chars().rev().find_map(|flag| match flag {
            '-' => Some(Pad::Nothing),
            '_' => Some(Pad::Blanks),
            '0' | '+' => Some(Pad::Zeros),
            _ => None,
        });
        let is_number = digits > 0;
        let pad = asked.unwrap_or(match code {
            'e' | 'k' | 'l' => Pad::Blanks,
            _ if is_number => Pad::Zeros,
            _ => Pad::Blanks,
        });
        let text = match (flags.contains('^'), flags.contains('#'), code) {
            (_, true, 'p' | 'Z') => plain.to_lowercase(),
            (true, _, _) | (_, true, 'a' | 'A' | 'b' | 'B' | 'h') => plain.to_uppercase(),
            _ => plain,
        };
        // Without a width, a number has its own, unless it is to have none.
        let width = match width.parse::<usize>() {
            Ok(width) => width.min(MOST_WIDTH),
            Err(_) if pad != Pad::Nothing => digits,
            Err(_) => 0,
        };
        let filling = if pad == Pad::Zeros { "0" } else { " " }.repeat(width.saturating_sub(text.chars().count()));
        Some((filling + &text, length))
    }

    /// A field without padding, and the number of digits that it is padded to; none for texts.
    fn plain(self, code: char) -> Option<(String, usize)> {
        let Date { year, month, day } = self;
        let month_name = MONTHS.get(usize::from(month).wrapping_sub(1)).copied().unwrap_or_default();
        let (weekday, yearday) = (self.weekday(), self.yearday());
        let (iso_year, iso_week) = self.iso_week();
        let text = |text: &str| Some((text.to_owned(), 0));
        let number = |number: usize, digits: usize| Some((number.to_string(), digits));
        match code {
            'Y' => number(year.into(), 4),
            'y' => number(usize::from(year % 100), 2),
            'C' => number(usize::from(year / 100), 2),
            'G' => number(iso_year, 4),
            'g' => number(iso_year % 100, 2),
            'm' => number(month.into(), 2),
            'd' | 'e' => number(day.into(), 2),
            'j' => number(yearday + 1, 3),
            'U' => number((yearday + 7 - weekday) / 7, 2),
            'W' => number((yearday + 7 - (weekday + 6) % 7) / 7, 2),
            'V' => number(iso_week, 2),
            'u' => number((weekday + 6) % 7 + 1, 1),
            'w' => number(weekday, 1),
            'H' | 'k' | 'M' | 'S' => number(0, 2),
            'I' | 'l' => number(12, 2),
            'f' => number(0, 6),
            's' => Some((self.seconds().to_string(), 1)),
            'B' => text(month_name),
            'b' | 'h' => text(month_name.get(..3).unwrap_or_default()),
            'A' => text(WEEKDAYS[weekday]),
            'a' => text(&WEEKDAYS[weekday][..3]),
            'p' => text("AM"),
            'P' => text("am"),
            'z' | 'Z' => text(""),
            'n' => text("\n"),
            't' => text("\t"),
            '%' => text("%"),
            'D' | 'x' => text(&self.format("%m/%d/%y")),
            'F' => text(&self.format("%Y-%m-%d")),
            'c' => text(&self.format("%a %b %e %H:%M:%S %Y")),
            'T' | 'X' => text(&self.format("%H:%M:%S")),
            'R' => text(&self.format("%H:%M")),
            'r' => text(&self.format("%I:%M:%S %p")),
            _ => None,
        }
    }

    /// Days since the last Sunday (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = usize::from(self.year) + 400 - usize::from(self.month < 3);
        let shift = SHIFT.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or(0);
        (year + year / 4 - year / 100 + year / 400 + shift + usize::from(self.day)) % 7
    }

    /// Days since the first of January.
    fn yearday(self) -> usize {
        const BEFORE: [usize; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let before = BEFORE.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or(0);
        let leap_day = usize::from(self.month > 2 && days(self.year) == 366);
        before + leap_day + usize::from(self.day).saturating_sub(1)
    }

    /// The year and week of ISO 8601, which are those of the week's Thursday; weeks begin on Monday.
    fn iso_week(self) -> (usize, usize) {
        let year = usize::from(self.year);
        // Counted from the beginning of the year before.
        let before = days(self.year.wrapping_sub(1));
        let thursday = before + self.yearday() + 3 - (self.weekday() + 6) % 7;
        if thursday < before {
            (year.wrapping_sub(1), thursday / 7 + 1)
        } else if thursday - before >= days(self.year) {
            (year + 1, 1)
        } else {
            (year, (thursday - before) / 7 + 1)
        }
    }

    /// Seconds since 1970, in UTC.
    fn seconds(self) -> i64 {
        let before = i64::from(self.year) - 1;
        let days = before * 365 + before / 4 - before / 100 + before / 400 + self.yearday() as i64;
        (days - DAYS_BEFORE_1970) * 24 * 60 * 60
    }
}

/// Days in a year.
fn days(year: u16) -> usize {
    365 + usize::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_there_are_none_of_stand_as_they_are() {
        let date = Date { year: 2024, month: 7, day: 6 };
        for format in ["", "no flags é", "%", "100 %", "%-", "%Q", "%10N", "%:z", "%é", "%-f", "%E"] {
            assert_eq!(date.format(format), format);
        }
        assert_eq!(date.format("%9999999999999d").len(), MOST_WIDTH);
    }

    #[test]
    fn a_month_that_there_is_none_of_has_no_name() {
        assert_eq!(Date { year: 2024, month: 13, day: 1 }.format("%B|%b|%m"), "||13");
    }
}

//! A date that a chat template can print.

use minijinja::{Error, ErrorKind};

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

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Date {
    pub(crate) year: u16,
    /// From 1; names of months out of range are empty.
    pub(crate) month: u8,
    pub(crate) day: u8,
}

impl Date {
    /// Python's `strftime` at midnight.
    pub(crate) fn format(self, format: &str) -> Result<String, Error> {
        let Date { year, month, day } = self;
        let month_name = MONTHS.get(usize::from(month).wrapping_sub(1)).copied().unwrap_or_default();
        let weekday = WEEKDAYS[self.weekday()];
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                text.push(next);
                continue;
            }
            let code = rest.next();
            text.push_str(&match code {
                Some('Y') => format!("{year:04}"),
                Some('y') => format!("{:02}", year % 100),
                Some('m') => format!("{month:02}"),
                Some('d') => format!("{day:02}"),
                Some('B') => month_name.to_owned(),
                Some('b') => month_name.chars().take(3).collect(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday.chars().take(3).collect(),
                Some('H' | 'M' | 'S') => "00".to_owned(),
                Some('%') => "%".to_owned(),
                _ => {
                    let message = format!("strftime_now knows %Y %y %m %d %B %b %A %a %H %M %S %%, not {format:?}");
                    return Err(Error::new(ErrorKind::InvalidOperation, message));
                }
            });
        }
        Ok(text)
    }

    /// Days since the last Sunday (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = usize::from(self.year) + 400 - usize::from(self.month < 3);
        let shift = SHIFT.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or(0);
        (year + year / 4 - year / 100 + year / 400 + shift + usize::from(self.day)) % 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_as_in_python() {
        let date = Date { year: 2024, month: 7, day: 6 };
        assert_eq!(date.format("%d %b %Y").unwrap(), "06 Jul 2024");
        assert_eq!(date.format("%A, %B %d, %y-%m %H:%M:%S 100%%").unwrap(), "Saturday, July 06, 24-07 00:00:00 100%");
        assert_eq!(Date { year: 2000, month: 2, day: 29 }.format("%a").unwrap(), "Tue");
        assert_eq!(Date { year: 1999, month: 12, day: 31 }.format("%a").unwrap(), "Fri");
        assert!(date.format("%Q").unwrap_err().to_string().contains("%Q"));
    }
}

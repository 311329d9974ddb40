//! The border between text from anywhere and a person's screen.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// The stand-in for a character that is not shown. It is one column wide and no syntax of anything, and it cannot be
/// mistaken for text of the document, as an escape such as `\u{202e}` could.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Marks on one letter that are drawn: no orthography needs more, and a flood of them covers the lines around it.
const MOST_MARKS: usize = 8;

/// The zero-width space, a place where a line may break.
const SPACE: char = '\u{200b}';

/// The text as a terminal or a page may show it: what a reader would not see, or what would act on the display, becomes U+FFFD.
///
/// That is: control characters (escape sequences begin with one) except for line breaks and tabs; bidirectional controls;
/// format characters, Hangul fillers and all else that Unicode calls default-ignorable, which includes the tags and
/// variation selectors that text can be hidden in; line and paragraph separators; noncharacters; and combining marks
/// from the ninth on the same letter. `\r\n` becomes `\n`.
///
/// Characters that writing needs stay, one at a time and only where they have an effect: joiners in emoji and behind letters of joining
/// and Indic scripts (Persian, Hindi …), variation selectors behind emoji, symbols, ideographs and those letters, and
/// zero-width spaces in Thai, Lao, Khmer and Burmese. The flags of England, Scotland and Wales, which are spelt in tags, do
/// not. Letters of every script stay, right-to-left ones too.
///
/// ```
/// use zerosearch_metrics::legible;
///
/// assert_eq!(legible("N'Djamena\u{1b}[2J\u{202e} 👩\u{200d}🚀"), "N'Djamena\u{fffd}[2J\u{fffd} 👩\u{200d}🚀");
/// ```
pub fn legible(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| is_plain(byte.into())) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(Legible::default().push(text))
}

/// The same on one line, for a log or a progress bar: line breaks and tabs become spaces.
pub fn legible_line(text: &str) -> String {
    legible(text).replace(['\n', '\t'], " ")
}

/// [`legible`] for a text that comes in pieces: it knows what the last piece ended in.
#[derive(Clone, Debug, Default)]
pub struct Legible {
    /// The last character that is no mark and no joiner.
    base: char,
    previous: char,
    /// Nonspacing marks on the base.
    marks: usize,
}

impl Legible {
    /// The next piece, as it may be shown.
    pub fn push(&mut self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character == '\r' && characters.peek() == Some(&'\n') {
                continue;
            }
            let character = if self.fits(character) { character } else { REPLACEMENT };
            self.follow(character);
            shown.push(character);
        }
        shown
    }

    fn fits(&self, character: char) -> bool {
        if is_plain(character) {
            return true;
        }
        let joined = is_joiner(self.previous) || self.previous == SPACE;
        let alone = !joined && !SELECTOR.has(self.previous);
        match character {
            SPACE => alone && UNDIVIDED.has(self.base),
            joiner if is_joiner(joiner) => !joined && (PICTOGRAPH.has(self.base) || JOINED.has(self.base)),
            selector if SELECTOR.has(selector) => alone && (VARIED.has(self.base) || JOINED.has(self.base)),
            mark if MARK.has(mark) => self.marks < MOST_MARKS && VISIBLE.has(mark),
            other => VISIBLE.has(other),
        }
    }

    fn follow(&mut self, shown: char) {
        if is_plain(shown) {
            (self.base, self.marks) = (shown, 0);
        } else if MARK.has(shown) && !SELECTOR.has(shown) {
            self.marks += 1;
        } else if !SPACING_MARK.has(shown) && !SELECTOR.has(shown) && !is_joiner(shown) && shown != SPACE {
            self.base = shown;
            // A replaced mark is no letter that could have marks of its own.
            self.marks = if shown == REPLACEMENT { self.marks } else { 0 };
        }
        self.previous = shown;
    }
}

fn is_plain(character: char) -> bool {
    matches!(character, ' '..='~' | '\n' | '\t')
}

/// Zero-width joiner and non-joiner, and the separator of Mongolian vowels, which shapes letters as they do.
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200c}' | '\u{200d}' | '\u{180e}')
}

/// A set of characters, written as a class of a regular expression.
struct Class(LazyLock<Option<Regex>>);

impl Class {
    const fn new(regex: fn() -> Option<Regex>) -> Self {
        Self(LazyLock::new(regex))
    }

    /// A class that cannot be read has nothing in it, so that nothing would be shown because of it.
    fn has(&self, character: char) -> bool {
        self.0.as_ref().is_some_and(|class| class.is_match(character.encode_utf8(&mut [0; 4])))
    }
}

macro_rules! class {
    ($class:expr) => {
        Class::new(|| Regex::new(concat!("^", $class, "$")).ok())
    };
}

/// Format characters are hidden but for the signs above or below a number, as in Arabic.
static VISIBLE: Class = class!(
    r"[^\p{Cc}\p{Zl}\p{Zp}[\p{Cf}--\p{Prepended_Concatenation_Mark}]\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]"
);
static MARK: Class = class!(r"[\p{Mn}\p{Me}]");
static SPACING_MARK: Class = class!(r"\p{Mc}");
static SELECTOR: Class = class!(r"\p{Variation_Selector}");
static PICTOGRAPH: Class = class!(r"[\p{Emoji}--\p{ASCII}]");
/// Among the emoji are the digits, which keycaps are made of.
static VARIED: Class = class!(r"[\p{Emoji}\p{Ideographic}\p{Sm}]");
/// Letters of the living scripts whose letters join or form conjuncts.
static JOINED: Class = class!(concat!(
    r"[\p{L}&&[\p{scx=Arabic}\p{scx=Syriac}\p{scx=Mandaic}\p{scx=Nko}\p{scx=Adlam}\p{scx=Hanifi_Rohingya}",
    r"\p{scx=Mongolian}\p{scx=Phags_Pa}\p{scx=Devanagari}\p{scx=Bengali}\p{scx=Gurmukhi}\p{scx=Gujarati}",
    r"\p{scx=Oriya}\p{scx=Tamil}\p{scx=Telugu}\p{scx=Kannada}\p{scx=Malayalam}\p{scx=Sinhala}\p{scx=Tibetan}",
    r"\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Balinese}\p{scx=Javanese}\p{scx=Sundanese}\p{scx=Meetei_Mayek}]]",
));
/// Scripts without blanks between words.
static UNDIVIDED: Class = class!(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_can_be_read() {
        for class in [&VISIBLE, &MARK, &SPACING_MARK, &SELECTOR, &PICTOGRAPH, &VARIED, &JOINED, &UNDIVIDED] {
            assert!(class.0.is_some());
        }
    }

    #[test]
    fn nothing_that_is_hidden_or_acts_on_the_display_stays() {
        let controls = ('\0'..='\u{1f}').filter(|c| !matches!(c, '\n' | '\t')).chain('\u{7f}'..='\u{9f}');
        let bidirectional = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter();
        let bidirectional = bidirectional.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let invisible = ['\u{ad}', '\u{34f}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{feff}', '\u{180e}'].into_iter();
        let invisible = invisible.chain('\u{2060}'..='\u{2065}').chain('\u{206a}'..='\u{206f}');
        let fillers = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{17b4}', '\u{17b5}'].into_iter();
        let selectors = ('\u{fe00}'..='\u{fe0f}').chain('\u{e0100}'..='\u{e01ef}').chain('\u{180b}'..='\u{180d}');
        let tags = '\u{e0000}'..='\u{e007f}';
        let others = ('\u{fff9}'..='\u{fffb}').chain(['\u{2028}', '\u{2029}', '\u{1d173}', '\u{1bca0}']);
        let noncharacters = ['\u{fdd0}', '\u{fffe}', '\u{ffff}', '\u{10ffff}'].into_iter();
        let all = controls.chain(bidirectional).chain(invisible).chain(fillers).chain(selectors);
        for character in all.chain(tags).chain(others).chain(noncharacters) {
            let text = format!("a{character}b{character}");
            assert_eq!(legible(&text), "a\u{fffd}b\u{fffd}", "U+{:04X}", u32::from(character));
        }
    }

    #[test]
    fn what_writing_needs_stays() {
        let texts = [
            "N'Djamena, Zürich – “Straße”\t1960\n",
            "می\u{200c}خواهم",                      // Persian
            "مِ\u{200c}ن",                           // … with a vowel sign
            "क्\u{200d}ष रा\u{200d}",                // Hindi
            "ශ්\u{200d}රී ලංකා",                       // Sinhala
            "ភាសា\u{200b}ខ្មែរ",                      // Khmer, words divided by zero-width spaces
            "ᠮᠣᠩᠭᠣᠯ\u{180e}ᠠ ᠠ\u{180b}",            // Mongolian
            "👩\u{200d}🚀 👨\u{200d}👩\u{200d}👧",  // emoji sequences
            "👩🏽\u{200d}💻 ❤\u{fe0f}\u{200d}🔥",     // … with skin tone and selector
            "1\u{fe0f}\u{20e3} ☎\u{fe0e}",          // keycap, text style
            "葛\u{e0100}飾 ≨\u{fe00}",              // variants of ideographs and symbols
            "שָׁלוֹם עֲלֵיכֶ֖ם",                           // Hebrew with points
            "٠\u{600}٢٠٢٦ 北京\u{3000}東京 한국어", // Arabic number sign, CJK
            "e\u{301}\u{323}\u{302}",               // decomposed
        ];
        for text in texts {
            assert_eq!(legible(text), text, "{text:?}");
        }
    }

    #[test]
    fn what_writing_needs_stays_once() {
        for (text, shown) in [
            ("👩\u{200d}\u{200d}", "👩\u{200d}\u{fffd}"),
            ("ی\u{200c}\u{200d}\u{200c}", "ی\u{200c}\u{fffd}\u{fffd}"),
            // Bytes hidden in the selectors behind one emoji.
            ("😀\u{fe0f}\u{e0148}\u{e0155}", "😀\u{fe0f}\u{fffd}\u{fffd}"),
            ("❤\u{fe0f}\u{200d}\u{fe0f}", "❤\u{fe0f}\u{200d}\u{fffd}"),
            ("ก\u{200b}\u{200b}", "ก\u{200b}\u{fffd}"),
            ("Par\u{200d}is", "Par\u{fffd}is"),
            ("-\u{200d}", "-\u{fffd}"),
        ] {
            assert_eq!(legible(text), shown, "{text:?}");
        }
        let flood = format!("a{}b{}", "\u{301}".repeat(100), "\u{301}".repeat(3));
        let shown = format!("a{}{}b{}", "\u{301}".repeat(8), "\u{fffd}".repeat(92), "\u{301}".repeat(3));
        assert_eq!(legible(&flood), shown);
    }

    #[test]
    fn line_breaks_stay_and_a_carriage_return_cannot_overwrite_a_line() {
        assert_eq!(legible("one\r\ntwo\tthree\r"), "one\ntwo\tthree\u{fffd}");
        assert_eq!(legible_line("one\r\ntwo\tthree"), "one two three");
    }

    #[test]
    fn pieces_are_shown_as_the_whole() {
        let text = "👩\u{200d}🚀 a\u{200d} می\u{200c}خ\u{1b}[0m क्\u{200d}ष\u{200c}\u{200c}";
        let mut pieces = Legible::default();
        let shown: String = text.chars().map(|character| pieces.push(&character.to_string())).collect();
        assert_eq!(shown, legible(text));
    }
}

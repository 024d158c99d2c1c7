//! Markdown tables that are readable as plain text: padded columns, numbers aligned right.

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Heading and alignment of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridColumn {
    /// Heading, with the unit.
    pub heading: String,
    pub align: Align,
}

/// A table of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Heading above the table; empty for none.
    pub caption: String,
    pub columns: Vec<GridColumn>,
    /// Cells, one per column in each row.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// An empty grid. A heading that starts with `<` is aligned left; the mark is not shown.
    pub(super) fn new(caption: impl Into<String>, headings: &[&str]) -> Self {
        let column = |heading: &&str| match heading.strip_prefix('<') {
            Some(words) => GridColumn { heading: words.to_owned(), align: Align::Left },
            None => GridColumn { heading: (*heading).to_owned(), align: Align::Right },
        };
        Self { caption: caption.into(), columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// The grid as Markdown, ending in a newline.
    #[must_use]
    pub fn markdown(&self) -> String {
        // A bar would end the cell, and a backslash would escape the bar's backslash.
        let escape = |text: &str| one_line(text).replace('\\', "\\\\").replace('|', "\\|");
        let headings: Vec<String> = self.columns.iter().map(|c| escape(&c.heading)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
        let width = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|c| rows.iter().chain([&headings]).map(|row| width(row, c)).fold(2, usize::max))
            .collect();

        let mut text = String::new();
        if !self.caption.is_empty() {
            text.push_str(&format!("## {}\n\n", one_line(&self.caption)));
        }
        let mut line = |cells: &[String]| {
            for ((cell, &width), column) in cells.iter().zip(&widths).zip(&self.columns) {
                match column.align {
                    Align::Left => text.push_str(&format!("| {cell:<width$} ")),
                    Align::Right => text.push_str(&format!("| {cell:>width$} ")),
                }
            }
            text.push_str("|\n");
        };
        line(&headings);
        let rule = widths.iter().zip(&self.columns).map(|(&width, column)| match column.align {
            Align::Left => "-".repeat(width),
            Align::Right => "-".repeat(width - 1) + ":",
        });
        line(&rule.collect::<Vec<_>>());
        for row in &rows {
            line(row);
        }
        text
    }
}

/// The text with every line end, tab or other control character replaced by a space.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.trim().replace("\r\n", " ").replace(breaks_line, " ")
}

/// Whether a character is a control character or line separator, which names must not contain.
#[must_use]
pub fn breaks_line(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

/// Formats an integer with grouped digits: `4,089,184,256`.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a count in thousands, millions or billions with two decimals: `8.32 M`.
pub(super) fn short_count(value: u64) -> String {
    let (unit, name) = match value {
        0..1_000 => return value.to_string(),
        1_000..1_000_000 => (1e3, "k"),
        1_000_000..1_000_000_000 => (1e6, "M"),
        1_000_000_000.. => (1e9, "B"),
    };
    format!("{:.2} {name}", value as f64 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_numbers_right_words_left_bars_escaped() {
        let mut grid = Grid::new("Sizes", &["<name", "params"]);
        grid.rows.push(vec!["a|b".to_owned(), "7".to_owned()]);
        grid.rows.push(vec!["µ".to_owned(), "1,000".to_owned()]);
        let expected = "## Sizes\n\n\
                        | name | params |\n\
                        | ---- | -----: |\n\
                        | a\\|b |      7 |\n\
                        | µ    |  1,000 |\n";
        assert_eq!(grid.markdown(), expected);
    }

    #[test]
    fn labels_of_any_kind_stay_in_their_cell() {
        let mut grid = Grid::new("Two\nlines", &["<na\nme", "n"]);
        for label in ["a\r\nb", "c\td\u{2028}e", "f\\|g", "h\\"] {
            grid.rows.push(vec![label.to_owned(), "1".to_owned()]);
        }
        let expected = "## Two lines\n\n\
                        | na me  |  n |\n\
                        | ------ | -: |\n\
                        | a b    |  1 |\n\
                        | c d e  |  1 |\n\
                        | f\\\\\\|g |  1 |\n\
                        | h\\\\    |  1 |\n";
        assert_eq!(grid.markdown(), expected);
    }

    #[test]
    fn counts_are_grouped_and_shortened() {
        let apart = [0, 999, 1000, 4_089_184_256].map(grouped);
        assert_eq!(apart.as_slice(), ["0", "999", "1,000", "4,089,184,256"]);
        let shortened = [999, 1000, 8_319_000, 30_940_000_000].map(short_count);
        assert_eq!(shortened.as_slice(), ["999", "1.00 k", "8.32 M", "30.94 B"]);
    }
}

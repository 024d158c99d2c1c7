//! A measured figure with its reference and its requirement, and the table of all figures.

use std::fmt::Write;

/// The requirement on a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The measured quantity and its size.
    pub name: String,
    /// Ours, with its unit.
    pub ours: String,
    /// The reference, with its unit.
    pub reference: String,
    /// The ratio of the two, if there is one.
    pub ratio: Option<f64>,
    /// `None` if nothing is required.
    pub required: Option<Bound>,
    /// How it was measured or derived.
    pub note: String,
}

impl Figure {
    /// A row with the reason why there is no figure.
    #[must_use]
    pub fn not_measured(name: impl Into<String>, required: Option<Bound>, reason: impl Into<String>) -> Self {
        let nothing = "not measured".to_owned();
        let (ours, reference) = (nothing.clone(), nothing);
        Self { name: name.into(), ours, reference, ratio: None, required, note: reason.into() }
    }

    fn holds(&self) -> &'static str {
        let (Some(required), Some(ratio)) = (self.required, self.ratio) else { return "-" };
        let holds = match required {
            Bound::AtLeast(bound) => ratio >= bound,
            Bound::AtMost(bound) => ratio <= bound,
        };
        if holds { "yes" } else { "NO" }
    }

    fn cells(&self, number: usize) -> [String; 7] {
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), decimals);
        let required = match self.required {
            Some(Bound::AtLeast(bound)) => format!("≥ {}", decimals(bound)),
            Some(Bound::AtMost(bound)) => format!("≤ {}", decimals(bound)),
            None => "-".to_owned(),
        };
        let (name, ours, reference) = (self.name.clone(), self.ours.clone(), self.reference.clone());
        [number.to_string(), name, ours, reference, ratio, required, self.holds().to_owned()]
    }
}

/// Three decimals for ratios near 1, fewer for large ones.
fn decimals(ratio: f64) -> String {
    match ratio.abs() {
        large if large >= 100.0 => format!("{ratio:.0}"),
        middle if middle >= 10.0 => format!("{ratio:.1}"),
        _ => format!("{ratio:.3}"),
    }
}

/// All figures in aligned columns, then the note of each.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let heading = ["", "figure", "ours", "reference", "ratio", "required", "holds"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(heading)
        .chain(figures.iter().enumerate().map(|(place, figure)| figure.cells(place + 1)))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
    for (place, figure) in figures.iter().enumerate() {
        let _ = writeln!(text, "{:>2}  {}", place + 1, figure.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ratio: Option<f64>, required: Option<Bound>) -> Figure {
        let (ours, reference) = ("1 s".to_owned(), "2 s".to_owned());
        Figure { name: "work".into(), ours, reference, ratio, required, note: "timed".into() }
    }

    #[test]
    fn a_bound_holds_up_to_itself() {
        let holds = |ratio, bound| figure(Some(ratio), Some(bound)).holds();
        assert_eq!(holds(200.0, Bound::AtLeast(200.0)), "yes");
        assert_eq!(holds(199.9, Bound::AtLeast(200.0)), "NO");
        assert_eq!(holds(1.05, Bound::AtMost(1.05)), "yes");
        assert_eq!(holds(1.051, Bound::AtMost(1.05)), "NO");
        assert_eq!(holds(f64::NAN, Bound::AtMost(1.05)), "NO");
        assert_eq!(figure(Some(3.0), None).holds(), "-");
        assert_eq!(figure(None, Some(Bound::AtLeast(1.0))).holds(), "-");
    }

    #[test]
    fn columns_are_aligned_and_notes_are_numbered() {
        let missing = Figure::not_measured("step", Some(Bound::AtMost(1.05)), "no Python");
        let text = table(&[figure(Some(1234.0), Some(Bound::AtLeast(200.0))), missing]);
        let expected = "   figure  ours          reference     ratio  required  holds\n\
                        1  work    1 s           2 s           1234   ≥ 200     yes\n\
                        2  step    not measured  not measured  -      ≤ 1.050   -\n\
                        \n 1  timed\n 2  no Python\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn ratios_near_one_show_three_decimals() {
        assert_eq!([1.0499, 12.34, 250.4].map(decimals), ["1.050", "12.3", "250"]);
    }
}

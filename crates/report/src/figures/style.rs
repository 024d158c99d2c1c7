//! The look of all figures: one colour, dash and mark for each method, the font, sizes.
//!
//! Colours are those of Okabe and Ito, which people with colour-blindness tell apart; dashes and marks carry the same information in
//! grey.

use serde_json::{Value, json};

/// The font of all figures. vl-convert ships it; Arial and Helvetica have the same widths, so an SVG file looks the same where only
/// these exist.
pub(crate) const FONT: &str = "Liberation Sans, Arial, Helvetica, sans-serif";
/// The specification's language.
pub(crate) const SCHEMA: &str = "https://vega.github.io/schema/vega-lite/v6.json";

/// Text and axes.
pub(crate) const INK: &str = "#222222";
/// Reference lines.
pub(crate) const REFERENCE: &str = "#666666";
/// Ends of the scale of heat maps, light to dark: an order in grey as well.
pub(crate) const HEAT: [&str; 2] = ["#F1F5F9", "#0B3C6F"];
/// From this fraction of the scale on, text on it is white.
pub(crate) const DARK: f64 = 0.6;
/// Grid lines.
const GRID: &str = "#E4E4E4";

/// How a method is drawn in every figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MethodStyle {
    pub(crate) colour: &'static str,
    /// Lengths of dashes and gaps, pixels.
    pub(crate) dash: &'static [f64],
    /// A mark of Vega.
    pub(crate) shape: &'static str,
}

const fn style(colour: &'static str, dash: &'static [f64], shape: &'static str) -> MethodStyle {
    MethodStyle { colour, dash, shape }
}

/// Styles of the registered methods, by selector and reconstruction.
const KNOWN: [(&str, &str, MethodStyle); 14] = [
    ("thinet", "channel-scale", style("#0072B2", &[1.0, 0.0], "circle")),
    ("thinet", "none", style("#56B4E9", &[7.0, 3.0], "square")),
    ("thinet-omp", "channel-scale", style("#009E73", &[11.0, 3.0], "triangle-up")),
    ("thinet-omp", "none", style("#6B8E23", &[2.0, 2.0], "triangle-left")),
    ("apoz", "none", style("#E69F00", &[8.0, 3.0, 2.0, 3.0], "diamond")),
    ("weight-sum-l1", "none", style("#D55E00", &[4.0, 2.0], "cross")),
    ("weight-sum-l2", "none", style("#CC79A7", &[12.0, 3.0, 2.0, 3.0, 2.0, 3.0], "triangle-down")),
    ("lasso", "none", style("#004488", &[5.0, 2.0, 5.0, 4.0], "triangle-down")),
    ("activation-mean", "none", style("#DDAA33", &[6.0, 3.0], "square")),
    ("taylor", "none", style("#AA4499", &[9.0, 3.0, 3.0, 3.0], "diamond")),
    ("fpgm", "none", style("#117733", &[3.0, 2.0, 1.0, 2.0], "triangle-up")),
    ("bn-scale", "none", style("#BB5566", &[13.0, 2.0, 2.0, 2.0], "circle")),
    ("random", "none", style("#000000", &[2.0, 3.0], "triangle-right")),
    ("from-scratch", "none", style("#7F7F7F", &[14.0, 4.0], "square")),
];

/// Styles of all others; a method has the same one in every figure.
const OTHERS: [MethodStyle; 4] = [
    style("#882255", &[6.0, 2.0, 1.0, 2.0], "cross"),
    style("#332288", &[3.0, 1.0], "diamond"),
    style("#661100", &[9.0, 2.0], "circle"),
    style("#999933", &[1.0, 2.0], "square"),
];

/// The style of a method.
pub(crate) fn of_method(selector: &str, reconstruction: &str) -> MethodStyle {
    let is_it = |known: &&(&str, &str, MethodStyle)| (known.0, known.1) == (selector, reconstruction);
    if let Some((.., style)) = KNOWN.iter().find(is_it) {
        return *style;
    }
    let sum: usize = selector.bytes().chain(reconstruction.bytes()).map(usize::from).sum();
    OTHERS[sum % OTHERS.len()]
}

/// The configuration of every figure.
pub(crate) fn config() -> Value {
    json!({
        "font": FONT,
        "background": "white",
        "padding": 8,
        "view": { "stroke": null },
        "concat": { "spacing": 22 },
        "facet": { "spacing": 18 },
        "title": {
            "anchor": "start", "frame": "bounds", "color": INK, "fontSize": 17, "fontWeight": "bold",
            "subtitleColor": INK, "subtitleFontSize": 13, "subtitleLineHeight": 18, "subtitlePadding": 7, "offset": 14,
        },
        "axis": {
            "labelFontSize": 13, "titleFontSize": 14, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
            "gridColor": GRID, "domainColor": INK, "tickColor": INK, "titlePadding": 8, "labelPadding": 4, "tickSize": 4, "labelFlush": false,
        },
        "header": { "labelFontSize": 14, "titleFontSize": 14, "labelColor": INK, "titleColor": INK, "labelFontWeight": "bold" },
        "legend": { "labelFontSize": 13, "titleFontSize": 13, "labelColor": INK, "titleColor": INK, "titleFontWeight": "normal" },
        "text": { "color": INK, "fontSize": 13 },
    })
}

/// The angle of an axis of layers, in degrees: level where the longest name fits into the `step` pixels of a layer.
pub(crate) fn layer_angle(layers: &[String], step: f64) -> i32 {
    let longest = layers.iter().map(|layer| layer.chars().count()).max().unwrap_or(0);
    if step < 7.2 * longest as f64 + 8.0 { -45 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_layers_are_level_where_they_fit() {
        let layers = |name: &str| vec![name.to_owned()];
        assert_eq!((layer_angle(&layers("conv1_1"), 60.0), layer_angle(&layers("conv1_1"), 57.0)), (0, -45));
        assert_eq!(
            (layer_angle(&layers("layer1.0.conv1"), 75.0), layer_angle(&layers("layer1.0.conv1"), 110.0)),
            (-45, 0)
        );
    }

    #[test]
    fn no_two_known_methods_look_alike_in_colour_or_in_grey() {
        for (at, (.., a)) in KNOWN.iter().enumerate() {
            for (.., b) in &KNOWN[at + 1..] {
                assert_ne!(a.colour, b.colour);
                assert_ne!((a.dash, a.shape), (b.dash, b.shape));
                assert!(a.dash != b.dash, "{} {}", a.colour, b.colour);
            }
        }
    }

    #[test]
    fn an_unknown_method_has_one_style() {
        assert_eq!(of_method("new", "none"), of_method("new", "none"));
        assert!(OTHERS.contains(&of_method("new", "none")));
    }
}

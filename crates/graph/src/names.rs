//! Suggestions for misspelt names: layers, selectors, reconstructions, and keys and values of specs follow one rule.

/// The candidate that `wrong` is most likely a misspelling of; the first of several equally near ones.
///
/// A candidate is near if its Damerau–Levenshtein distance is at most a third of the longer name. A different number of two or more
/// digits names a different thing: `resnet18` is no misspelling of `resnet50`, `resnet5` is.
#[must_use]
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &'a str| {
        let distance = strsim::damerau_levenshtein(wrong, candidate);
        let longer = wrong.chars().count().max(candidate.chars().count());
        (3 * distance <= longer && may_share_number(wrong, candidate)).then_some((distance, candidate))
    };
    let near = candidates.into_iter().filter_map(near);
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// A suggestion as part of a message: `, did you mean "conv1"?`, or empty without one.
#[must_use]
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

/// Whether the digits of two names are equal but for one at the end, or at most one digit each.
fn may_share_number(a: &str, b: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (a, b) = (digits(a), digits(b));
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.len() <= 1 || (long.starts_with(&short) && long.len() - short.len() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_in_three_characters_is_tolerated_and_the_first_of_equals_is_suggested() {
        let layers = ["conv1", "conv2", "conv3"];
        for (wrong, expected) in [
            ("cnov2", Some("conv2")),
            ("conv", Some("conv1")),
            ("conv9", Some("conv1")),
            ("ocnv33", Some("conv3")),
            ("conxy", None),
            ("fire9", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, layers), expected, "{wrong}");
        }
    }

    #[test]
    fn another_number_is_no_misspelling() {
        let nets = ["vgg16", "vgg16-gap", "resnet50", "cifar-vgg16", "cifar-resnet20", "tiny"];
        for other in ["resnet18", "resnet34", "vgg19", "vgg11", "mobilenet", "resnet", "alexnet"] {
            assert_eq!(nearest(other, nets), None, "{other}");
        }
        for (wrong, meant) in
            [("vgg1", "vgg16"), ("vgg16gap", "vgg16-gap"), ("resnet5", "resnet50"), ("tinny", "tiny")]
        {
            assert_eq!(nearest(wrong, nets), Some(meant), "{wrong}");
        }
    }
}

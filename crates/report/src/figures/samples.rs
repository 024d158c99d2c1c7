//! The calibration samples of a study's variants, from the spec beside its table.

use super::FigureError;
use super::source::Tables;
use super::study::Study;

/// The keys of a sample that a variant can override, each with its name in the table `[calibration]` and the value that is left out.
const KEYS: [(&str, &str, Option<i64>); 3] = [
    ("calibration.images-per-class", "images-per-class", None),
    ("calibration.positions-per-image", "positions-per-image", None),
    ("calibration.draw", "draw", Some(0)),
];

/// The calibration sample of a variant.
pub(super) struct VariantSample {
    pub(super) variant: String,
    pub(super) images: u64,
    pub(super) positions: u64,
    /// Which of the samples of this size.
    pub(super) draw: u64,
    /// What the variant overrides besides, as text.
    pub(super) others: String,
}

/// Whether two variants have other draws of a sample of one size.
pub(super) fn is_any_drawn_again(samples: &[&VariantSample]) -> bool {
    let size = |sample: &VariantSample| (sample.images, sample.positions);
    let is_again = |(at, own): (usize, &&VariantSample)| {
        samples[..at].iter().any(|other| size(other) == size(own) && other.draw != own.draw)
    };
    samples.iter().enumerate().any(is_again)
}

/// The samples of a study's variants, from the spec beside its table; `None` if there is no such file.
pub(super) fn variant_samples(
    tables: &Tables,
    study: &Study,
) -> Result<Option<Vec<VariantSample>>, FigureError> {
    let samples = study.spec.as_ref().map(samples_of).transpose();
    samples.map_err(|problem| tables.bad_spec(&study.table, problem))
}

/// The samples of the variants of a spec; the error names the value that is missing or no count.
fn samples_of(spec: &toml::Table) -> Result<Vec<VariantSample>, String> {
    let list = |value: &toml::Value| value.as_array().cloned().unwrap_or_default();
    let mut samples = Vec::new();
    for variant in spec.get("variants").map(list).unwrap_or_default() {
        let name = variant.get("name").and_then(toml::Value::as_str).ok_or("a variant has no name")?;
        let mut numbers = [0; KEYS.len()];
        for (number, (dotted, key, left_out)) in numbers.iter_mut().zip(KEYS) {
            let own = variant.get(dotted);
            let value = own.or_else(|| spec.get("calibration")?.get(key));
            let count =
                value.map_or(left_out, toml::Value::as_integer).and_then(|count| u64::try_from(count).ok());
            *number = count.ok_or_else(|| format!("variant {name:?} has no count {dotted}"))?;
        }
        let mut others = variant.as_table().cloned().unwrap_or_default();
        others.remove("name");
        KEYS.iter().for_each(|(dotted, ..)| drop(others.remove(*dotted)));
        let [images, positions, draw] = numbers;
        samples.push(VariantSample {
            variant: name.to_owned(),
            images,
            positions,
            draw,
            others: others.to_string(),
        });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(spec: &str) -> Result<Vec<VariantSample>, String> {
        samples_of(&spec.parse().unwrap())
    }

    #[test]
    fn a_sample_is_the_variants_override_or_the_specs() {
        let spec = "[calibration]\nimages-per-class = 10\npositions-per-image = 5\n\
                    [[variants]]\nname = \"plain\"\n\
                    [[variants]]\nname = \"few\"\n\"calibration.images-per-class\" = 1\n\
                    [[variants]]\nname = \"both\"\n\"calibration.positions-per-image\" = 2\n\"prune.mode\" = \"one-shot\"\n";
        let found = samples(spec).unwrap();
        let sizes: Vec<_> = found.iter().map(|s| (s.variant.as_str(), s.images, s.positions)).collect();
        assert_eq!(sizes, [("plain", 10, 5), ("few", 1, 5), ("both", 10, 2)]);
        assert!(found[0].others == found[1].others && found[0].others != found[2].others);
        assert!(found.iter().all(|sample| sample.draw == 0));
        let again = format!("{spec}[[variants]]\nname = \"again\"\n\"calibration.draw\" = 2\n");
        let again = samples(&again).unwrap().remove(3);
        assert_eq!((again.draw, &again.others), (2, &found[0].others));
        assert!(samples("name = \"x\"").unwrap().is_empty());
        let error = samples("[[variants]]\nname = \"few\"").err().unwrap();
        assert_eq!(error, "variant \"few\" has no count calibration.images-per-class");
    }
}

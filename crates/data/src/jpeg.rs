//! Finds the end of a JPEG image by following the markers from the first byte (ITU-T T.81, annex B).

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;

/// The number of bytes up to and including the first image's end marker; bytes after it (a film, a second
/// picture) are not part of the image. `None` if the file is cut off inside the image: the decoder would fill the rest with
/// grey and report nothing.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match next_marker(bytes, &mut at)? {
            EOI => return Some(at),
            // Another image starts before the end of this one.
            SOI if at > 2 => return None,
            // These have no segment; 0xd0 to 0xd7 are the restarts within a scan.
            SOI | 0x01 | 0xd0..=0xd7 => {}
            // A segment: two bytes of length, which count themselves. A thumbnail inside it is skipped.
            _ => {
                let length = bytes.get(at..at + 2)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// Height and width by the frame header (SOF) of the first image; `None` if the bytes end before it or it names none.
pub(crate) fn size(bytes: &[u8]) -> Option<[usize; 2]> {
    if !bytes.starts_with(&[0xff, SOI]) {
        return None;
    }
    let mut at = 2;
    loop {
        let code = next_marker(bytes, &mut at)?;
        match code {
            EOI => return None,
            // Frames of every kind; 0xc4, 0xc8 and 0xcc are other segments.
            0xc0..=0xcf if ![0xc4, 0xc8, 0xcc].contains(&code) => {
                // Length (2), precision (1), height (2), width (2).
                let header = bytes.get(at..at + 7)?;
                let number =
                    |place: usize| usize::from(u16::from_be_bytes([header[place], header[place + 1]]));
                let (height, width) = (number(3), number(5));
                return (height > 0 && width > 0).then_some([height, width]);
            }
            SOI | 0x01 | 0xd0..=0xd7 => {}
            _ => {
                let length = bytes.get(at..at + 2)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// Moves `at` after the next marker and returns its code. A marker is 0xff and a code, with any number of 0xff before the
/// code as padding. Stray bytes between segments are skipped, as decoders do, and the data of a scan with them: within
/// the data 0xff is followed by 0 (an escaped data byte), by the code of a restart, or by more 0xff.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += bytes.get(*at..)?.iter().position(|&byte| byte == 0xff)?;
        *at += bytes[*at..].iter().position(|&byte| byte != 0xff)?;
        let code = bytes[*at];
        *at += 1;
        if code != 0 {
            return Some(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn jpeg(width: u32, height: u32, quality: u8, seed: u32) -> Vec<u8> {
        let pixel =
            |x: u32, y: u32| Rgb([x * 7 + seed, y * 5 + x * y, seed.wrapping_mul(x + y)].map(|v| v as u8));
        let mut bytes = Vec::new();
        let image = RgbImage::from_fn(width, height, pixel);
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&image).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> RgbImage {
        image::load_from_memory_with_format(bytes, image::ImageFormat::Jpeg).unwrap().into_rgb8()
    }

    /// Start of image, a segment, a scan with these data, end of image.
    fn by_hand(scan: &[u8]) -> Vec<u8> {
        let head: &[u8] = &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xda, 0, 3, 9];
        [head, scan, &[0xff, 0xd9]].concat()
    }

    #[test]
    fn scans_hold_stuffed_bytes_restarts_and_fill() {
        for scan in [
            &[][..],
            &[1, 2, 0xff, 0, 0xda],
            &[0xff, 0, 0xd9, 0xff, 0xd3, 5, 0xff, 0xff, 0xff, 0, 7],
            &[0xff, 0xff, 0xd7, 1, 0xff, 0xff],
            // Another table and another scan.
            &[1, 0xff, 0xc4, 0, 3, 0xff, 0xff, 0xda, 0, 2, 8, 0xff, 0],
            // A segment that holds markers: a thumbnail.
            &[1, 0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xda, 0xff, 0xd9, 0xff, 0xda, 0, 2, 8],
        ] {
            let bytes = by_hand(scan);
            assert_eq!(end(&bytes), Some(bytes.len()), "{scan:?}");
            assert_eq!(end(&[&bytes[..], &[0xff, 0xda, 0, 2, 1]].concat()), Some(bytes.len()), "{scan:?}");
            for cut in 0..bytes.len() {
                assert_eq!(end(&bytes[..cut]), None, "{cut} bytes of {scan:?}");
            }
        }
    }

    #[test]
    fn an_image_that_is_cut_off_is_not_ended_by_another_ones_end() {
        let (first, second) = (jpeg(40, 30, 80, 1), jpeg(8, 8, 80, 2));
        assert_eq!(end(&[&first[..], &second].concat()), Some(first.len()));
        let cut = [&first[..first.len() - 100], &second[..]].concat();
        assert_eq!(end(&cut), None);
        // Cut off before its scan, behind the first segment.
        assert_eq!(end(&[&first[..20], &second[..]].concat()), None);
    }

    proptest! {
        #[test]
        fn bytes_behind_the_end_change_nothing_and_missing_ones_are_noticed(
            width in 1u32..40, height in 1u32..40, quality in 1u8..=100, seed: u32,
            mut tail in prop::collection::vec(prop_oneof![Just(0xff), Just(0xda), Just(0xd8), any::<u8>()], 0..80),
            cut in 1usize..60,
        ) {
            let whole = jpeg(width, height, quality, seed);
            prop_assert_eq!(end(&whole), Some(whole.len()));
            // The start of a scan without an end, as it occurs in the bytes of a film.
            tail.extend([0xff, 0xda, 0, 12, 3]);
            let longer = [&whole[..], &tail].concat();
            prop_assert_eq!(end(&longer), Some(whole.len()));
            prop_assert_eq!(decode(&longer[..whole.len()]), decode(&whole));
            prop_assert_eq!(end(&whole[..whole.len() - cut]), None);
        }

        #[test]
        fn any_bytes_have_an_end_inside_of_them_or_none(bytes in prop::collection::vec(
            prop_oneof![Just(0xff), Just(0xd8), Just(0xda), Just(0xd9), Just(0), any::<u8>()], 0..200)) {
            if let Some(end) = end(&bytes) {
                prop_assert!(end <= bytes.len());
                prop_assert_eq!(&bytes[end - 1..end], &[EOI]);
            }
        }
    }
}

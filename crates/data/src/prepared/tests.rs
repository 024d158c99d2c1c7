//! Files of prepared photographs: damaged and stale ones are refused by name.

use std::fs;

use proptest::prelude::*;
use thinet_seed::Seed;

use super::*;
use crate::decode::Picture;
use crate::protocol::Geometry;

#[test]
fn a_record_holds_the_planar_pixels_and_shows_every_change() {
    let picture = Picture { width: 2, height: 1, channels: 3, pixels: vec![1, 2, 3, 4, 5, 6] };
    let bytes = record::record(Some(&picture));
    assert_eq!(bytes[..8], [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(bytes[8..14], [1, 4, 2, 5, 3, 6]);
    assert_eq!(record::checked(&bytes), Some(record::Size { height: 1, width: 2 }));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert_eq!(record::checked(&changed), None, "byte {at}");
        assert_eq!(record::checked(&bytes[..at]), None, "{at} bytes");
    }
    let damaged = record::record(None);
    assert_eq!(record::checked(&damaged), Some(record::Size::DAMAGED));
    assert_eq!(damaged.len() as u64, record::Size::DAMAGED.record_len());
}

fn header() -> Header {
    Header {
        reader: VERSION.to_owned(),
        dataset: "imagenet".to_owned(),
        part: Part::Test,
        protocol: Protocol::CaffeShort,
        side: 4,
        max_pixels: MAX_PIXELS,
        limit: None,
        images: 1,
        contents: "c".to_owned(),
        folder: "/data".to_owned(),
    }
}

#[test]
fn the_name_follows_everything_but_the_folder() {
    let name = |change: &dyn Fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        header.file_name().unwrap()
    };
    // Pinned: files that were made by earlier programs are found by it.
    assert_eq!(name(&|_| ()), "imagenet-test-caffe-short-4.39e80530aab0cea3.pixels");
    assert_eq!(name(&|header| header.folder = "/elsewhere".to_owned()), name(&|_| ()));
    let others: Vec<String> = vec![
        name(&|header| header.reader.push('2')),
        name(&|header| header.contents.push('2')),
        name(&|header| header.images = 2),
        name(&|header| header.part = Part::Train),
        name(&|header| header.protocol = Protocol::CaffeSquash),
        name(&|header| header.side = 5),
        name(&|header| header.limit = Some(1)),
        name(&|header| header.max_pixels = 100),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, name(&|_| ()));
        assert!(!others[..at].contains(other), "{other}");
    }
    assert!(others[6].starts_with("imagenet-test-caffe-short-4-first1."), "{}", others[6]);
    assert!(others[7].starts_with("imagenet-test-caffe-short-4-max100."), "{}", others[7]);
}

/// A finished file of these images.
fn file(folder: &Path, pictures: &[Picture], side: usize) -> PreparedImages {
    let wanted = Header { images: pictures.len() as u64, side, ..header() };
    let mut bytes = record::header(&wanted).unwrap();
    let mut sizes = Vec::new();
    for picture in pictures {
        let record = record::record(Some(picture));
        sizes.push(record::Size::of(&record));
        bytes.extend(record);
    }
    let index = record::index(&sizes, bytes.len() as u64);
    bytes.extend(index);
    let path = folder.join("a.pixels");
    fs::write(&path, bytes).unwrap();
    PreparedImages::open(&path, &wanted, None).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn crops_from_a_file_are_those_of_the_picture(
        height in 4usize..12, width in 4usize..12, crop in 1usize..=4, seed: u64, squash: bool,
    ) {
        let protocol = if squash { Protocol::CaffeSquash } else { Protocol::CaffeShort };
        // A picture that has its size already, so that only the crop is left.
        let [height, width] = if squash { [4, 4] } else if height < width { [4, width] } else { [height, 4] };
        let geometry = Geometry { protocol, side: 4, crop, max_pixels: MAX_PIXELS };
        let pixels = (0..3 * height * width).map(|i| (i * 37 + 11) as u8).collect();
        let picture = Picture { width, height, channels: 3, pixels };
        let folder = tempfile::tempdir().unwrap();
        let prepared = file(folder.path(), std::slice::from_ref(&picture), 4);
        let [mut expected, mut found] = [(); 2].map(|()| vec![0; 3 * crop * crop]);
        geometry.random(picture.clone(), Seed::root(seed), &mut expected).unwrap();
        let place = |size| geometry.random_place(size, Seed::root(seed));
        prop_assert!(prepared.cut(0, place, crop, &mut found).unwrap());
        prop_assert_eq!(&found, &expected);
        geometry.centre(picture, &mut expected).unwrap();
        prop_assert!(prepared.cut(0, |size| geometry.centre_place(size), crop, &mut found).unwrap());
        prop_assert_eq!(&found, &expected);
        prop_assert!(!prepared.cut(1, |_| [0, 0], crop, &mut found).unwrap());
    }
}

#[test]
fn a_file_with_any_part_changed_cut_off_or_added_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Picture> =
        (0..3).map(|i| Picture { width: 5, height: 4, channels: 3, pixels: vec![i; 60] }).collect();
    let wanted = Header { images: 3, ..header() };
    let path = file(folder.path(), &pictures, 4).path().to_owned();
    let whole = fs::read(&path).unwrap();
    // As when a study reads it: opened, then all images.
    let problem = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let read =
            PreparedImages::open(&path, &wanted, None).and_then(|prepared| prepared.check(&mut |_, _| ()));
        match read {
            Ok(()) => None,
            Err(DataError::Prepared { path: named, problem }) => {
                assert_eq!(named, path);
                Some(problem)
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(problem(&whole), None);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(problem(&changed).is_some(), "byte {at}");
    }
    for length in 0..whole.len() {
        assert!(problem(&whole[..length]).is_some(), "{length} bytes");
    }
    assert!(problem(&[&whole[..], &[0]].concat()).is_some());
    let mut other_version = whole.clone();
    other_version[14] = b'2';
    assert!(problem(&other_version).unwrap().contains("another version of this program"));
    let text = problem(&whole[..whole.len() - 1]).unwrap();
    assert_eq!(text, format!("it is damaged or cut off, so it is not used; {AGAIN}"));
    fs::write(&path, &whole).unwrap();
    let other = Header { contents: "d".to_owned(), ..wanted.clone() };
    let text = PreparedImages::open(&path, &other, None).err().unwrap().to_string();
    assert!(text.contains("prepared from other images (3 then, 3 now): files in /data"), "{text}");
    let other = Header { reader: "thinet photos v2".to_owned(), ..wanted };
    let text = PreparedImages::open(&path, &other, None).err().unwrap().to_string();
    assert!(
        text.contains("under \"thinet photos v1\", images are read under \"thinet photos v2\" now"),
        "{text}"
    );
}

//! Getting a dataset's files where that can be done, and saying how to get them by hand where it cannot.

use std::path::Path;

use crate::client::{Client, FetchEvent, Report};
use crate::kind::Origin;
use crate::{DataError, DatasetSpec};

/// As [`fetch_from`] the official addresses; `report` is called with a line for each step.
///
/// # Errors
/// As [`fetch_from`].
pub fn fetch(spec: &DatasetSpec, folder: &Path, report: &mut dyn FnMut(&str)) -> Result<(), DataError> {
    fetch_from(None, spec, folder, &mut |event| {
        if let FetchEvent::Line(line) = event {
            report(line);
        }
    })
}

/// Makes sure that [`open`](crate::open) finds the dataset in `folder`, and reports each step.
///
/// CIFAR-10, CIFAR-100 and CUB-200-2011: if the folder does not hold them, the official archive is downloaded beside its
/// place (`<archive>.partial`, where the next call continues), compared with the published checksum, unpacked into a
/// temporary folder, read, and renamed, so that a folder holds all or nothing. A folder that is not there becomes the
/// dataset; in one that is there, the archive's folder does.
///
/// Fashion-MNIST: files that are there already are checked and kept; missing ones come from the installed Debian
/// package, else from that package downloaded and unpacked without root, else from the official address. Everything is
/// checked before it gets its name in `folder`. Other datasets are only looked for.
///
/// `mirror` is the address of a folder that stands for the official one of every file.
///
/// # Errors
/// If a file in `folder` is not what it should be, or the dataset cannot be fetched: says what was tried and how to get
/// it by hand. If the mirror is not an address.
pub fn fetch_from(
    mirror: Option<&str>,
    spec: &DatasetSpec,
    folder: &Path,
    report: &mut dyn FnMut(FetchEvent<'_>),
) -> Result<(), DataError> {
    spec.check()?;
    fetch_with(&Client::new(mirror)?, spec, folder, report)
}

fn fetch_with(
    client: &Client,
    spec: &DatasetSpec,
    folder: &Path,
    report: &mut Report<'_>,
) -> Result<(), DataError> {
    let keys = spec.keys();
    let by_hand = |tried: &str, by_hand| DataError::Fetch {
        dataset: spec.name().to_owned(),
        folder: folder.to_owned(),
        tried: tried.to_owned(),
        by_hand,
    };
    let is_in = |place: &Path, report: &mut Report<'_>| {
        report(FetchEvent::Line(&format!("{} is in {}", spec.name(), place.display())));
        Ok(())
    };
    match keys.origin(folder) {
        Origin::Fetched(fetch) => fetch(folder, client, report),
        _ if is_there(spec, folder)? => is_in(folder, report),
        Origin::Archive(archive) => {
            archive.get(spec.name(), folder, client, &|folder| keys.read(folder).map(drop), report)?;
            is_in(&archive.place(folder), report)
        }
        Origin::ByHand { why, how } => Err(by_hand(why, how)),
        Origin::Own { how } => Err(by_hand("an image folder holds your own images", how)),
    }
}

/// Whether the dataset can be read; what is there and damaged is an error.
fn is_there(spec: &DatasetSpec, folder: &Path) -> Result<bool, DataError> {
    match spec.keys().read(folder) {
        Ok(_) => Ok(true),
        Err(DataError::Missing { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::MOST_BYTES;
    use crate::test_server::{Server, response};

    #[test]
    fn other_datasets_are_looked_for_and_never_made_up() {
        let folder = tempfile::tempdir().unwrap();
        for (spec, says) in [
            ("kind = 'imagenet'\nprotocol = 'torchvision'", "image-net.org"),
            ("kind = 'image-folder'\nname = 'Birds'\nsize = 8", "/train/<class>/"),
        ] {
            let spec: DatasetSpec = toml::from_str(spec).unwrap();
            let error = fetch(&spec, folder.path(), &mut |_| ()).unwrap_err();
            assert!(matches!(error, DataError::Fetch { .. }));
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(spec.name()), "{text}");
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
    #[test]
    fn datasets_with_an_archive_say_where_it_is_and_what_its_checksum_is() {
        let server = Server::new(|_, _| response("200 OK", "", b"\x1f\x8b"));
        for (kind, file, md5) in [
            ("cifar10", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
            ("cifar100", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
            ("cub200", "CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"),
        ] {
            let parent = tempfile::tempdir().unwrap();
            let spec = DatasetSpec::named(kind).unwrap();
            assert!(spec.is_fetched());
            let folder = parent.path().join(spec.folder());
            let mirror = Client::of_tests(Some(&server.address), MOST_BYTES);
            let error = fetch_with(&mirror, &spec, &folder, &mut |_| ()).unwrap_err().to_string();
            for part in [
                spec.name(),
                &format!("{}/{file}: md5 of ", server.address),
                md5,
                &format!("/{file} (md5 {md5})"),
            ] {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
            assert_eq!(parent.path().read_dir().unwrap().count(), 0);
        }
    }

    #[test]
    fn data_that_is_there_is_recognised_and_damaged_data_is_named_without_a_request() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&folder).unwrap();
        let record = [vec![7], vec![0; 3072]].concat();
        for name in
            ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
        {
            std::fs::write(folder.join(format!("{name}.bin")), record.repeat(10_000)).unwrap();
        }
        let spec = DatasetSpec::named("cifar10").unwrap();
        let server = Server::new(|_, _| response("404 Not Found", "", b""));
        let client = Client::of_tests(Some(&server.address), MOST_BYTES);
        let mut lines = Vec::new();
        for folder in [parent.path(), &folder] {
            fetch_with(&client, &spec, folder, &mut |event| lines.push(format!("{event:?}"))).unwrap();
        }
        assert!(lines.len() == 2 && lines[0].contains("CIFAR-10 is in "), "{lines:?}");
        std::fs::write(folder.join("test_batch.bin"), "short").unwrap();
        let error = fetch_with(&client, &spec, &folder, &mut |_| ()).unwrap_err();
        assert!(matches!(error, DataError::Size { found: 5, .. }), "{error}");
        std::fs::remove_file(folder.join("test_batch.bin")).unwrap();
        let error = fetch_with(&client, &spec, &folder, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("a part of it that is not touched"), "{error}");
        assert_eq!(folder.read_dir().unwrap().count(), 5);
        assert!(server.requests().is_empty());
    }
}

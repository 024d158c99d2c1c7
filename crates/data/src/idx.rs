//! Reading a file in MNIST's idx format, plain or gzipped, whose header and checksum are known.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::DataError;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A published idx file.
pub(crate) struct IdxFile {
    /// Its name, without `.gz`.
    pub(crate) stem: &'static str,
    /// The big-endian words at its start: the magic number and the size of each axis.
    pub(crate) header: Vec<u32>,
    /// Hex sha256 of the decompressed file, as compressed files with the same contents differ.
    pub(crate) sha256: String,
}

impl IdxFile {
    fn header_bytes(&self) -> usize {
        4 * self.header.len()
    }

    fn bytes(&self) -> usize {
        self.header_bytes() + self.header[1..].iter().map(|axis| *axis as usize).product::<usize>()
    }

    /// The file in this folder, gzipped or not.
    pub(crate) fn find(&self, folder: &Path) -> Option<PathBuf> {
        let names = [self.gz_name(), self.stem.to_owned()];
        names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    /// The name of the gzipped file.
    pub(crate) fn gz_name(&self) -> String {
        format!("{}.gz", self.stem)
    }

    /// Reads the values after the header, and checks size, header and checksum.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, DataError> {
        let mut contents = decompressed(path, self.bytes())?;
        for (word, expected) in self.header.iter().enumerate() {
            let bytes = [0, 1, 2, 3].map(|byte| contents[4 * word + byte]);
            let found = u32::from_be_bytes(bytes);
            if found != *expected {
                let what =
                    if word == 0 { "magic number".to_owned() } else { format!("size of axis {}", word - 1) };
                return Err(DataError::format(path, format!("{what} is {found}, expected {expected}")));
            }
        }
        let found: String = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.sha256 {
            return Err(DataError::Checksum { path: path.to_owned(), expected: self.sha256.clone(), found });
        }
        Ok(contents.split_off(self.header_bytes()))
    }
}

/// The contents of a plain or gzipped file (detected from its first bytes), which must have exactly this many bytes.
fn decompressed(path: &Path, expected: usize) -> Result<Vec<u8>, DataError> {
    let file = fs::read(path).map_err(DataError::io(path, "read"))?;
    let mut contents = Vec::new();
    let (outcome, rest) = if file.starts_with(&GZIP_MAGIC) {
        let mut decoder = MultiGzDecoder::new(&file[..]);
        let outcome = decoder.by_ref().take(expected as u64).read_to_end(&mut contents);
        // Reading to the end checks gzip's own checksum; bytes after the expected end are counted and not kept.
        let rest = if outcome.is_ok() { io::copy(&mut decoder, &mut io::sink()) } else { Ok(0) };
        (outcome, rest)
    } else {
        contents = file;
        (Ok(contents.len()), Ok(0))
    };
    match outcome.and(rest) {
        Ok(0) if contents.len() == expected => Ok(contents),
        Ok(rest) => {
            let found = contents.len() as u64 + rest;
            Err(DataError::Size { path: path.to_owned(), expected: expected as u64, found })
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let found = contents.len();
            let problem =
                format!("the gzip data is cut off: expected {expected} bytes decompressed, found {found}");
            Err(DataError::format(path, problem))
        }
        Err(error) => Err(DataError::format(path, format!("damaged gzip data: {error}"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A file with this header and these values: what is published about it, and its contents.
    pub(crate) fn example(stem: &'static str, header: &[u32], values: &[u8]) -> (IdxFile, Vec<u8>) {
        let words = header.iter().flat_map(|word| word.to_be_bytes());
        let contents: Vec<u8> = words.chain(values.iter().copied()).collect();
        let sha256 = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        (IdxFile { stem, header: header.to_vec(), sha256 }, contents)
    }

    pub(crate) fn gzipped(contents: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    /// What reading gives for these bytes, with the folder cut from error texts.
    fn read(idx: &IdxFile, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(idx.gz_name()), bytes).unwrap();
        let path = idx.find(folder.path()).unwrap();
        idx.read(&path)
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn plain_and_gzipped_files_give_the_same_values() {
        let (idx, contents) = example("a", &[2051, 2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(read(&idx, &contents).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(read(&idx, &gzipped(&contents)).unwrap(), [1, 2, 3, 4, 5, 6]);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(idx.find(folder.path()), None);
        fs::write(folder.path().join("a"), &contents).unwrap();
        assert_eq!(idx.find(folder.path()), Some(folder.path().join("a")));
    }

    #[test]
    fn every_damage_names_the_file_and_what_was_expected() {
        let (idx, contents) = example("a", &[2049, 40], &[7; 40]);
        let says = |bytes: &[u8]| read(&idx, bytes).unwrap_err();
        assert_eq!(says(&[]), "a.gz: expected 48 bytes, found 0");
        assert_eq!(says(&contents[..47]), "a.gz: expected 48 bytes, found 47");
        assert_eq!(says(&gzipped(&contents[..20])), "a.gz: expected 48 bytes, found 20");
        assert_eq!(says(&gzipped(&[&contents[..], &[0; 5]].concat())), "a.gz: expected 48 bytes, found 53");
        let zipped = gzipped(&contents);
        let cut = says(&zipped[..zipped.len() - 9]);
        assert!(
            cut.starts_with("a.gz: the gzip data is cut off: expected 48 bytes decompressed, found "),
            "{cut}"
        );
        let mut damaged = zipped;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(says(&damaged).starts_with("a.gz: damaged gzip data: "), "{}", says(&damaged));
        let (_, other) = example("a", &[2051, 40], &[7; 40]);
        assert_eq!(says(&other), "a.gz: magic number is 2051, expected 2049");
        let (_, other) = example("a", &[2049, 39], &[7; 40]);
        assert_eq!(says(&other), "a.gz: size of axis 0 is 39, expected 40");
        let (found, other) = example("a", &[2049, 40], &[8; 40]);
        let checksum = format!("a.gz: sha256 of the contents is {}, expected {}", found.sha256, idx.sha256);
        assert_eq!(says(&other), checksum);
    }
}

//! Recognises by its first bytes what a file without weights is instead, such as the remains of a failed download.

/// Number of leading bytes that [`what_it_is`] needs.
pub(crate) const START: usize = 512;

/// Describes the file and what to do, for a sentence that begins with its name; `None` for an unknown kind.
pub(crate) fn what_it_is(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    let begins =
        |words: &str| text.get(..words.len()).is_some_and(|t| t.eq_ignore_ascii_case(words.as_bytes()));
    Some(match start {
        [] => "is empty: the download or the copy did not begin; fetch the file again",
        [0x1f, 0x8b, ..] => "is compressed with gzip: unpack it with gunzip",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "is compressed with bzip2: unpack it with bunzip2",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "is compressed with xz: unpack it with unxz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "is compressed with zstd: unpack it with unzstd",
        [b'P', b'K', 5, 6, ..] => "is an empty zip archive",
        [b'\x89', b'H', b'D', b'F', ..] => {
            "is an HDF5 file (Keras); only safetensors and PyTorch checkpoints are read"
        }
        [b'\x93', b'N', b'U', b'M', b'P', b'Y', ..] => {
            "is a NumPy array; only safetensors and PyTorch checkpoints are read"
        }
        [0x80, 2..=5, ..] => {
            "is a Python pickle that torch.save did not write; save the state dict with torch.save"
        }
        _ if start.get(257..262) == Some(b"ustar") => {
            "is a tar archive: unpack it with tar -xf and name the file inside"
        }
        _ if begins("version https://git-lfs") => {
            "is a Git LFS pointer, not the file it points to: fetch that with git lfs pull"
        }
        _ if begins("<!doctype html") || begins("<html") || begins("<head") => {
            "is an HTML page: the download gave a page (of an error or a login) instead of the file; fetch it again"
        }
        _ if begins("<?xml") => {
            "is an XML text: the download gave an error message instead of the file; fetch it again"
        }
        _ if begins("{") => "is a JSON text, not the weights; an index of several weight files is not read",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_downloads_leave_is_called_what_it_is() {
        let mut tar = [0; START];
        tar[..5].copy_from_slice(b"a.pth");
        tar[257..262].copy_from_slice(b"ustar");
        for (start, words) in [
            (&b""[..], "is empty"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"BZh9", "bzip2"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"PK\x05\x06", "empty zip"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"\x93NUMPY", "NumPy"),
            (b"\x80\x04\x95", "Python pickle"),
            (&tar, "tar archive"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS pointer"),
            (b"\n <!DOCTYPE HTML><title>404</title>", "HTML page"),
            (b"<html lang=\"en\">", "HTML page"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (b"{\"weight_map\": {}}", "JSON"),
        ] {
            let said = what_it_is(start).unwrap_or_default();
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(what_it_is(b"\x10\0\0\0\0\0\0\0{}"), None);
    }
}

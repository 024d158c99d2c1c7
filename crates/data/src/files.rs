//! Listing folders without the files that systems and disk tools leave there, and distinguishing a missing file from one that
//! cannot be read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;

use crate::DataError;

/// What NAS boxes, archive tools and desktops leave in folders, in lower case. Names that start with a dot (`.DS_Store`,
/// `._photo.jpg`, `.AppleDouble`, `.ipynb_checkpoints`) are hidden and never listed.
const LITTER: [&str; 16] = [
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "recycler",
    "system volume information",
    "thumbs.db",
];

/// Whether a file or folder of this name is neither a class nor an image, wherever it lies.
pub(crate) fn is_litter(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || name.to_str().is_some_and(|name| LITTER.contains(&name.to_ascii_lowercase().as_str()))
}

/// The sorted names in a folder, without litter. If the folder is missing, `hint` says what should be there.
pub(crate) fn names(folder: &Path, hint: &str) -> Result<Vec<OsString>, DataError> {
    if !is_folder(folder)? {
        return Err(DataError::Missing { path: folder.to_owned(), hint: hint.to_owned() });
    }
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names: Vec<OsString> = entries.map_err(DataError::io(folder, "list"))?;
    names.retain(|name| !is_litter(name));
    names.sort_unstable();
    Ok(names)
}

/// Whether there is a file of this path.
pub(crate) fn is_file(path: &Path) -> Result<bool, DataError> {
    Ok(metadata(path)?.is_some_and(|metadata| metadata.is_file()))
}

/// Whether there is a folder of this path.
pub(crate) fn is_folder(path: &Path) -> Result<bool, DataError> {
    Ok(metadata(path)?.is_some_and(|metadata| metadata.is_dir()))
}

/// The metadata of a path; `None` if there is nothing. Any other failure is an error.
fn metadata(path: &Path) -> Result<Option<Metadata>, DataError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => Ok(None),
        Err(error) => Err(DataError::io(path, "read")(error)),
    }
}

/// Reads a file that must have exactly `bytes` bytes. If it is missing, `hint` says what should be there.
pub(crate) fn read_exactly(path: &Path, bytes: usize, hint: &str) -> Result<Vec<u8>, DataError> {
    let contents = fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => DataError::Missing { path: path.to_owned(), hint: hint.to_owned() },
        _ => DataError::io(path, "read")(error),
    })?;
    if contents.len() != bytes {
        let (expected, found) = (bytes as u64, contents.len() as u64);
        return Err(DataError::Size { path: path.to_owned(), expected, found });
    }
    Ok(contents)
}

/// The size of an image file in bytes.
pub(crate) fn image_size(path: &Path) -> Result<u64, DataError> {
    let metadata = fs::metadata(path).map_err(DataError::io(path, "read"))?;
    if metadata.is_dir() {
        return Err(DataError::layout(path, "is a folder, expected a .png, .jpg or .jpeg file"));
    }
    if !metadata.is_file() || !is_image_name(path) {
        return Err(DataError::layout(path, "is not a .png, .jpg or .jpeg file"));
    }
    Ok(metadata.len())
}

/// Whether the extension is that of an image.
pub(crate) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litter_is_told_from_classes_and_images() {
        for name in [
            "@eaDir",
            ".DS_Store",
            "Thumbs.db",
            "__MACOSX",
            ".AppleDouble",
            "._dog.jpg",
            "lost+found",
            ".ipynb_checkpoints",
            "$RECYCLE.BIN",
            "desktop.ini",
            "#recycle",
            "THUMBS.DB",
        ] {
            assert!(is_litter(name.as_ref()), "{name}");
        }
        for name in ["n01440764", "recycled", "macosx", "thumbs", "desktop.jpg", "@home", "#1"] {
            assert!(!is_litter(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn absent_is_not_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!((is_file(&file).unwrap(), is_folder(&file).unwrap()), (true, false));
        assert_eq!((is_file(folder.path()).unwrap(), is_folder(folder.path()).unwrap()), (false, true));
        assert!(!is_file(&folder.path().join("no")).unwrap());
        assert!(!is_file(&file.join("below a file")).unwrap());
        // Too long for every system.
        let endless = folder.path().join("x".repeat(5000));
        assert!(matches!(is_file(&endless), Err(DataError::Io { path, .. }) if path == endless));
        assert!(matches!(names(&endless, ""), Err(DataError::Io { .. })));
        let nothing = names(&folder.path().join("no"), "what to do").unwrap_err().to_string();
        assert!(nothing.ends_with("no: not found; what to do"), "{nothing}");
    }
}

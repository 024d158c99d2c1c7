//! `thinet data check` on image folders: many damaged files, one class only, folders of any name; `thinet data fetch`: mirror, proxy,
//! full disk.

use std::fs;

use crate::fixture::{Fixture, SPEC};

#[test]
fn a_check_counts_all_damaged_files_and_names_the_first_twenty() {
    let fixture = Fixture::with_study();
    for class in 0..2 {
        for image in 0..12 {
            fixture.write(&format!("images/train/class{class}/{image:03}.png"), "no image");
        }
    }
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!((check.code, check.err.as_str()), (3, "error: 24 files cannot be decoded\n"), "{}", check.out);
    let named: Vec<&str> = check.out.lines().filter(|line| line.starts_with("damaged: ")).collect();
    assert_eq!((named.len(), named[20]), (21, "damaged: and 4 more; --json names all"));
    assert!(named[0].starts_with("damaged: images/train/class0/000.png: "), "{}", named[0]);
    assert!(check.out.ends_with("72 of 72 files decoded, 24 damaged\n"), "{}", check.out);
    let json = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images", "--json"]);
    let report = json.json();
    assert_eq!((json.code, report["damaged"].as_array().unwrap().len()), (3, 24));
}

#[test]
fn images_of_one_class_only_fail_their_check() {
    let fixture = Fixture::new();
    fixture.images(1, 4, 2);
    fixture.write("small.toml", SPEC);
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!(check.code, 3, "{}", check.out);
    assert!(check.out.contains("problem: all 4 training images are of one class\n"), "{}", check.out);
    let expected = "error: all 4 training images are of one class; all 2 test images are of one class\n";
    assert_eq!(check.err, expected);
    let run = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert_eq!((run.code, run.err), (3, expected.replace("error: ", "error: images: ")));
    assert!(!fixture.path("results").exists());
}

#[test]
fn a_limit_above_the_number_of_images_is_refused_with_its_spec() {
    let fixture = Fixture::new();
    fixture.images(3, 4, 2);
    fixture.write("small.toml", &SPEC.replace("size = 16", "size = 16, train-limit = 13"));
    for command in [&["data", "check", "--for"][..], &["run"]] {
        let ran = fixture.run(&[command, &["small.toml", "--data", "images"]].concat());
        let expected =
            "error: small.toml: dataset.train-limit: 13 is more than the 12 images there are (Waves)\n";
        assert_eq!((ran.code, ran.err.as_str()), (2, expected), "{command:?}");
    }
}

#[test]
fn a_folder_named_like_an_image_counts_as_damaged() {
    let fixture = Fixture::new();
    fixture.images(3, 4, 2);
    fixture.write("small.toml", SPEC);
    fs::create_dir(fixture.path("images/train/class0/x.png")).unwrap();
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!((check.code, check.err.as_str()), (3, "error: 1 file cannot be decoded\n"), "{}", check.out);
    let named = "damaged: images/train/class0/x.png: is a folder, expected a .png, .jpg or .jpeg file\n";
    assert!(check.out.contains(named), "{}", check.out);
}

#[cfg(unix)]
#[test]
fn a_folder_whose_name_is_not_utf8_is_checked_and_used() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let fixture = Fixture::with_study();
    let odd = OsStr::from_bytes(b"caf\xe9");
    fs::rename(fixture.path("images"), fixture.path("").join(odd)).unwrap();
    for arguments in
        [&["data", "check", "--json", "--for", "small.toml", "--data"][..], &["run", "small.toml", "--data"]]
    {
        let done = fixture.command(arguments).arg(odd).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A server on loopback that answers every request with these bytes; the first lines of the requests come out.
fn server(answer: &'static [u8]) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let lines: Vec<String> = BufReader::new(&connection)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let _ = tell.send(lines[0].clone());
            let _ = connection.write_all(answer);
        }
    });
    (address, requests)
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// `thinet data fetch` without the proxies of this machine.
fn fetch(fixture: &Fixture, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = fixture.command(&[&["data", "fetch"], arguments].concat());
    for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    let output = command.env_remove("THINET_MIRROR").envs(variables.iter().copied()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let folder = fixture.path("").display().to_string();
    (output.status.code().unwrap_or(-1), error.replace(folder.trim_end_matches('/'), "DIR"))
}

#[test]
fn a_mirror_is_asked_instead_of_the_official_address() {
    let fixture = Fixture::new();
    let (address, requests) = server(NOT_FOUND);
    let mirror = format!("http://{address}/sets/");
    let by_option = fetch(&fixture, &["cifar10", "--mirror", &mirror], &[]);
    let by_variable = fetch(&fixture, &["cifar10"], &[("THINET_MIRROR", &mirror)]);
    assert_eq!(by_option, by_variable);
    let expected = format!(
        "downloading http://{address}/sets/cifar-10-binary.tar.gz\n\
         error: cannot get CIFAR-10 into DIR/data/cifar-10-batches-bin: \
         http://{address}/sets/cifar-10-binary.tar.gz: the server answered 404 Not Found; to get it by hand: download \
         https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (md5 c32a1d4ab5d03f1284b67883e8d87530) to \
         DIR/data/cifar-10-binary.tar.gz and run the same command again; a copy of it elsewhere: --mirror URL, or \
         THINET_MIRROR=URL\n"
    );
    assert_eq!(by_option, (3, expected));
    assert_eq!(requests.try_recv().unwrap(), "GET /sets/cifar-10-binary.tar.gz HTTP/1.1");
    assert!(!fixture.path("data").exists());

    let (code, error) = fetch(&fixture, &["cifar10", "--mirror", "/data/mirror"], &[("THINET_MIRROR", "")]);
    assert_eq!(code, 2);
    assert!(error.starts_with("error: --mirror (or THINET_MIRROR) is not an address such as "), "{error}");
}

#[test]
fn a_proxy_of_the_environment_is_asked() {
    let fixture = Fixture::new();
    let (address, requests) =
        server(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let proxy = format!("http://{address}");
    let arguments = ["cifar100", "--mirror", "https://mirror.invalid/sets"];
    let (code, error) = fetch(&fixture, &arguments, &[("HTTPS_PROXY", &proxy)]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("https://mirror.invalid/sets/cifar-100-binary.tar.gz: "), "{error}");
    assert!(requests.try_recv().unwrap().starts_with("CONNECT mirror.invalid:443 "));
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_ends_a_download_and_keeps_what_came() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n";
    let fixture = Fixture::new();
    let answer = [ANSWER, &[7; 300_000]].concat().leak();
    let (address, _requests) = server(answer);
    // Blocks of 512 or 1024 bytes; a write beyond is an error instead of a signal.
    let limited = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_thinet")])
        .args(["data", "fetch", "cub200", "--mirror", &format!("http://{address}")])
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    let error = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(3), "{error}");
    assert!(error.contains("/data/CUB_200_2011.tgz.partial: File too large"), "{error}");
    assert!(error.contains(" are kept for the next try"), "{error}");
    let names: Vec<_> =
        fs::read_dir(fixture.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["CUB_200_2011.tgz.partial"]);
}

use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(text).unwrap();
    e.finish().unwrap()
}

fn zst(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

fn lines(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut r = LineReader::from_read("in", Cursor::new(bytes))?;
    let mut out = Vec::new();
    while let Some(l) = r.next_line()? {
        assert_eq!(l.number, out.len() as u64 + 1);
        out.push(l.bytes.to_vec());
    }
    Ok(out)
}

#[test]
fn empty_inputs_are_errors() {
    assert!(matches!(lines(vec![]), Err(ReadError::Empty { compression: Compression::None, .. })));
    assert!(matches!(
        lines(gzip(b"")),
        Err(ReadError::Empty { compression: Compression::Gzip, .. })
    ));
    assert!(matches!(
        lines(zst(b"")),
        Err(ReadError::Empty { compression: Compression::Zstd, .. })
    ));
}

#[test]
fn a_nul_byte_is_named_by_its_place() {
    match lines(b"one\ntw\0o\n".to_vec()) {
        Err(ReadError::Binary { line: 2, column: 3, offset: 6, byte: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_line_is_refused_and_one_just_short_enough_is_not() {
    let mut text = vec![b'a'; MAX_LINE_BYTES];
    text.push(b'\n');
    assert_eq!(lines(text).unwrap()[0].len(), MAX_LINE_BYTES);
    let text = vec![b'a'; 3 * MAX_LINE_BYTES];
    match lines(text) {
        Err(ReadError::LineTooLong { line: 1, offset: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_cut_of_a_packed_stream_is_an_error_with_its_place() {
    let text = (0..2000).map(|i| format!("line {}\n", i * i)).collect::<String>().into_bytes();
    for (packed, kind) in [(gzip(&text), Compression::Gzip), (zst(&text), Compression::Zstd)] {
        assert_eq!(lines(packed.clone()).unwrap().len(), 2000);
        for cut in (8..packed.len()).step_by(97).chain([packed.len() - 1]) {
            match lines(packed[..cut].to_vec()) {
                Err(ReadError::Truncated { compression, packed_bytes, .. }) => {
                    assert_eq!((compression, packed_bytes), (kind, cut as u64));
                }
                other => panic!("{kind} cut at {cut}: {:?}", other.map(|l| l.len())),
            }
        }
    }
}

#[test]
fn damage_is_an_error() {
    let text = (0..2000).map(|i| format!("line {}\n", i * i)).collect::<String>().into_bytes();
    let mut packed = gzip(&text);
    let last = packed.len() - 6;
    packed[last] ^= 0xff;
    assert!(matches!(lines(packed), Err(ReadError::Damaged { .. })));
}

#[test]
fn other_compressions_are_named() {
    for (magic, name) in [
        (&b"\xfd7zXZ\0rest"[..], "xz"),
        (&b"BZh91AY"[..], "bzip2"),
        (&b"\x04\x22\x4d\x18rest"[..], "lz4"),
    ] {
        match lines(magic.to_vec()) {
            Err(ReadError::UnsupportedCompression { name: n, .. }) => assert_eq!(n, name),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn several_members_and_frames() {
    let mut two = gzip(b"a\n");
    two.extend(gzip(b"b\n"));
    assert_eq!(lines(two).unwrap(), [b"a", b"b"]);
    let mut two = zst(b"a\n");
    two.extend(zst(b"b\n"));
    assert_eq!(lines(two).unwrap(), [b"a", b"b"]);
}

#[test]
fn missing_file_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("none"), dir.path().to_path_buf()] {
        assert!(matches!(LineReader::open(&path), Err(ReadError::Open { .. })), "{path:?}");
    }
}

/// Hands out a few bytes at a time.
struct Dribble(Cursor<Vec<u8>>, usize);

impl Read for Dribble {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(self.1);
        self.0.read(&mut buf[..n])
    }
}

proptest! {
    #[test]
    fn lines_are_those_of_a_split(
        text in prop::collection::vec(prop_oneof![3 => 1u8..=255, 1 => Just(b'\n')], 1..4000),
        step in 1usize..50, packing in 0..3,
    ) {
        prop_assume!(packing != 0 || !matches!(text[..], [0x1f, 0x8b, ..] | [0xfd, b'7', ..]
            | [b'B', b'Z', ..] | [0x28, 0xb5, ..] | [_, 0x2a, ..] | [4, 0x22, ..]));
        let bytes = match packing { 0 => text.clone(), 1 => gzip(&text), _ => zst(&text) };
        let mut r = LineReader::from_read("in", Dribble(Cursor::new(bytes), step)).unwrap();
        let mut expected: Vec<&[u8]> = text.split(|c| *c == b'\n').collect();
        let unterminated = !expected.last().unwrap().is_empty();
        if !unterminated { expected.pop(); }
        let mut offset = 0;
        for (i, e) in expected.iter().enumerate() {
            let l = r.next_line().unwrap().unwrap();
            prop_assert_eq!(l.bytes, e.strip_suffix(b"\r").unwrap_or(e));
            prop_assert_eq!(l.offset, offset);
            prop_assert_eq!(l.terminated, !(unterminated && i + 1 == expected.len()));
            offset += e.len() as u64 + 1;
        }
        prop_assert_eq!(r.next_line().unwrap(), None);
    }
}

// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is written is read, and nothing else is.

use std::env;
use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use virtio_gpu_s3::saved_state::{SavedContent, SavedGpu};
use virtio_gpu_s3::{Gpu, NullRenderer};
use virtio_gpu_s3_testing::config;
use virtio_gpu_s3_testing::kept::check;
use virtio_gpu_snapshot::{
    Kind, PAGE, PIXELS, ReadError, ReadGpuError, Snapshot, WriteError, WriteGpuError, Writer,
    read_gpu, write_file, write_gpu,
};

/// One of everything, as version 1 of the model's text has it.
const GOLDEN: &str = include_str!("../../tests/golden/gpu-v1.json");
/// The same as a file of layout 1.
const FIXTURE: &str = "tests/fixtures/gpu-v1.snapshot";

fn golden() -> SavedGpu {
    serde_json::from_str(GOLDEN).unwrap()
}

fn restore(saved: SavedGpu) -> Gpu {
    Gpu::restore(config(2, 16, 16), Box::new(NullRenderer), saved).unwrap()
}

fn written(gpu: &Gpu) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    write_gpu(&mut writer, gpu).unwrap();
    writer.finish().unwrap().into_inner()
}

fn read(file: &[u8]) -> Result<SavedGpu, ReadGpuError> {
    read_gpu(&mut Snapshot::open(Cursor::new(file))?)
}

/// A file of such sections.
fn file_of(sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for (kind, version, bytes) in sections {
        let kind = Kind::new(kind).unwrap();
        writer.section(kind, *version, bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn every_version_that_was_ever_written_is_restored() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIXTURE);
    let gpu = restore(golden());
    if env::var_os("WRITE_FIXTURE").is_some() && !path.exists() {
        fs::write(&path, written(&gpu)).unwrap();
    }
    // Today's code writes that file, too: what it writes otherwise needs another number.
    assert!(fs::read(&path).unwrap() == written(&gpu));
    let saved = read(&fs::read(path).unwrap()).unwrap();
    assert_eq!(saved, golden());
    assert_eq!(restore(saved).save().unwrap(), golden());
}

#[test]
fn a_device_is_written_without_a_copy_and_read_as_it_was() {
    let gpu = restore(golden());
    let mut kept = Vec::new();
    let mut apart = gpu.save_apart(|bytes| kept.push(bytes.to_vec())).unwrap();
    assert!(apart.pictures_mut().all(|picture| picture.bytes.is_empty()));
    for (picture, bytes) in apart.pictures_mut().zip(kept) {
        picture.bytes = bytes;
    }
    assert_eq!(apart, golden());
    // Pictures, a blob's copy and a cursor.
    assert_eq!(apart.pictures_mut().count(), 5);
    let is_blob = |content: &SavedContent| matches!(content, SavedContent::GuestBlob { .. });
    assert!(apart.resources.iter().any(|it| is_blob(&it.content)));
}

#[test]
fn pixels_lie_on_whole_pages() {
    let file = written(&restore(golden()));
    let mut snapshot = Snapshot::open(Cursor::new(&file)).unwrap();
    for index in 0..snapshot.sections().len() {
        let section = snapshot.sections()[index];
        assert_eq!(section.offset % PAGE, 0);
        let at = usize::try_from(section.offset).unwrap();
        let bytes = snapshot.read(index, section.length).unwrap();
        assert_eq!(file[at..at + bytes.len()], bytes);
        // One byte less is refused before it is read.
        let refused = snapshot.read(index, section.length - 1);
        assert!(matches!(refused, Err(ReadError::TooMuch { .. })));
    }
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let file = written(&restore(golden()));
    for length in 0..file.len() {
        assert!(read(&file[..length]).is_err(), "{length}");
    }
    // Nor may there be more.
    assert!(read(&[&file[..], &[0]].concat()).is_err());
    // A writer that was killed left no header.
    let mut unfinished = file.clone();
    unfinished[..64].fill(0);
    let refused = read(&unfinished).unwrap_err();
    assert!(matches!(refused, ReadGpuError::Read(ReadError::NoSnapshot)));
}

#[test]
fn any_changed_byte_is_noticed_or_lies_between_sections() {
    let file = written(&restore(golden()));
    let mut unnoticed = 0;
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        if let Ok(saved) = read(&changed) {
            assert_eq!(saved, golden());
            unnoticed += 1;
        }
    }
    let snapshot = Snapshot::open(Cursor::new(&file)).unwrap();
    let covered: u64 = snapshot.sections().iter().map(|it| it.length).sum();
    // Sections, their entries, and the header.
    let covered = covered + 64 * snapshot.sections().len() as u64 + 48;
    assert_eq!(unnoticed, file.len() as u64 - covered);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let text = GOLDEN.as_bytes();
    let gpu = "virtio-gpu-s3/gpu";
    for (file, words) in [
        (
            file_of(&[(gpu, 2, text)]),
            "section 0 is version 2 of 'virtio-gpu-s3/gpu', where version 1 of 'virtio-gpu-s3/gpu' is read",
        ),
        (
            file_of(&[("news", 1, text)]),
            "section 0 is version 1 of 'news', where version 1 of 'virtio-gpu-s3/gpu' is read",
        ),
        (file_of(&[]), "there are 0 sections, and 1 are needed"),
        (
            file_of(&[(gpu, 1, text)]),
            "there are 1 sections, and 6 are needed",
        ),
        (file_of(&[(gpu, 1, b"{}")]), "the text is no device's"),
        (
            b"a text".to_vec(),
            "the file is no snapshot, or was not finished",
        ),
    ] {
        assert_eq!(read(&file).unwrap_err().to_string(), words);
    }
    let mut newer = file_of(&[(gpu, 1, text)]);
    newer[8] = 2;
    let refused = read(&newer).unwrap_err().to_string();
    assert_eq!(refused, "layout 2 of a snapshot is not known; 1 is");
}

#[test]
fn a_section_in_anothers_place_is_refused() {
    let saved = golden();
    let mut sections: Vec<(&str, u32, &[u8])> = vec![(PIXELS, 1, &[]); 4];
    sections.push((PIXELS, 2, &[]));
    sections.push(("virtio-gpu-s3/gpu", 1, GOLDEN.as_bytes()));
    let refused = read(&file_of(&sections)).unwrap_err();
    assert!(matches!(refused, ReadGpuError::Unknown { index: 4, .. }));
    // Pixels that are fewer than the picture has are the model's to refuse.
    sections[4].1 = 1;
    let short = read(&file_of(&sections)).unwrap();
    assert_ne!(short, saved);
    let refused = Gpu::restore(config(2, 16, 16), Box::new(NullRenderer), short);
    assert!(refused.is_err());
}

#[test]
fn the_fuzzer_starts_from_a_file_and_from_a_text() {
    let text = GOLDEN.as_bytes().to_vec();
    let seeds = [("file", written(&restore(golden()))), ("text", text)];
    check("snapshot_file", &seeds);
}

#[test]
fn kinds_have_a_form() {
    for name in ["", "with space", "ä", "a name of more than 32 characters"] {
        assert_eq!(Kind::new(name), None, "{name}");
    }
    let name = "exactly-thirty-two-characters-32";
    assert_eq!(Kind::new(name).unwrap().to_string(), name);
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all_and_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.snapshot");
    let gpu = restore(golden());
    fs::write(&path, "before").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let stops = |_: &mut Writer<_>| -> Result<(), WriteGpuError> {
        Err(WriteError::TooMuch {
            what: "nothing",
            asked: 1,
            most: 0,
        }
        .into())
    };
    assert!(write_file(&path, stops).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"before");
    write_file(&path, |writer| write_gpu(writer, &gpu)).unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(read(&file).unwrap(), golden());
    assert_eq!(file, written(&gpu));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no folder/guest.snapshot");
    assert!(write_file(&nowhere, |writer| write_gpu(writer, &gpu)).is_err());
}

proptest! {
    #[test]
    fn sections_are_read_as_they_were_written(
        sections in prop::collection::vec(("[a-z/-]{1,32}", any::<u32>(), prop::collection::vec(any::<u8>(), 0..9000)), 0..6)
    ) {
        let borrowed: Vec<_> = sections
            .iter()
            .map(|(kind, version, bytes)| (kind.as_str(), *version, bytes.as_slice()))
            .collect();
        let file = file_of(&borrowed);
        let mut snapshot = Snapshot::open(Cursor::new(&file)).unwrap();
        prop_assert_eq!(snapshot.sections().len(), sections.len());
        for (index, (kind, version, bytes)) in sections.iter().enumerate() {
            let section = snapshot.sections()[index];
            prop_assert_eq!(section.kind.to_string(), kind.as_str());
            prop_assert_eq!(section.version, *version);
            prop_assert_eq!(&snapshot.read(index, u64::MAX).unwrap(), bytes);
        }
    }
}

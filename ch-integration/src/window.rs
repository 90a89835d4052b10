// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host visible region of a VMM that maps nothing: each access of the guest's comes here, and is made here.
//!
//! A vfio-user client maps a BAR's file once, when it attaches, and what pages a file has does not change; blobs come
//! and go later, each in a file of its own or in none. An access that is trapped reaches the blob's memory itself, in
//! the order of the guest's program, so it is coherent whatever the caching that the guest chose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_gpu_s3::renderer::BlobMapping;
use virtio_gpu_s3::{HostVisible, MapError};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use host_util::memory_file::check_blob_file;

/// Mappings are of whole pages, so no piece of a page has another blob than the rest.
const PAGE: u64 = 4096;

/// The region.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: u64,
    blobs: Arc<Mutex<BTreeMap<u64, Shown>>>,
}

#[derive(Debug)]
struct Shown {
    /// Bytes of the range.
    size: u64,
    /// Bytes of the blob.
    length: u64,
    bytes: BlobBytes,
}

#[derive(Debug)]
enum BlobBytes {
    Mapped(MmapRegion<()>),
    /// The renderer's alone.
    Renderers {
        resource_id: u32,
    },
}

/// What only the thread that has the renderer can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobAccess {
    pub(crate) resource_id: u32,
    /// Distance from the blob's first byte.
    pub(crate) offset: u64,
}

/// The part of an access in one page.
enum Part<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl Window {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            blobs: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Shown>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `data`, with zeros where nothing is mapped. `ask` does what cannot be done here.
    pub(crate) fn read(
        &self,
        offset: u64,
        data: &mut [u8],
        mut ask: impl FnMut(BlobAccess, &mut [u8]),
    ) {
        data.fill(0);
        let mut offset = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let length = to_page_end(offset, rest.len());
            let (part, behind) = rest.split_at_mut(length);
            if let Some((access, length)) = self.reach(offset, Part::Read(part)) {
                ask(access, &mut part[..length]);
            }
            rest = behind;
            offset = offset.saturating_add(length as u64);
        }
    }

    /// Writes `data`; what is for no blob is lost.
    pub(crate) fn write(&self, offset: u64, data: &[u8], mut ask: impl FnMut(BlobAccess, &[u8])) {
        let mut offset = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let length = to_page_end(offset, rest.len());
            let (part, behind) = rest.split_at(length);
            if let Some((access, length)) = self.reach(offset, Part::Write(part)) {
                ask(access, &part[..length]);
            }
            rest = behind;
            offset = offset.saturating_add(length as u64);
        }
    }

    /// Makes the access, or says what is to be done for so many bytes of it. Under the lock, so that nothing is reached
    /// that was unmapped.
    fn reach(&self, offset: u64, part: Part<'_>) -> Option<(BlobAccess, usize)> {
        let blobs = self.lock();
        let (start, shown) = blobs.range(..=offset).next_back()?;
        let within = offset.checked_sub(*start)?;
        let left = shown.length.checked_sub(within)?;
        let asked = match &part {
            Part::Read(target) => target.len(),
            Part::Write(source) => source.len(),
        };
        let length = asked.min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            return None;
        }
        match &shown.bytes {
            BlobBytes::Mapped(region) => {
                let slice = region.get_slice(usize::try_from(within).ok()?, length);
                let slice = slice.ok()?;
                // It is as long as the part.
                match part {
                    Part::Read(target) => drop(slice.read_slice(&mut target[..length], 0)),
                    Part::Write(source) => drop(slice.write_slice(&source[..length], 0)),
                }
                None
            }
            BlobBytes::Renderers { resource_id } => {
                let access = BlobAccess {
                    resource_id: *resource_id,
                    offset: within,
                };
                Some((access, length))
            }
        }
    }
}

/// How much of an access is in the page that it starts in.
fn to_page_end(offset: u64, length: usize) -> usize {
    let left = PAGE - offset % PAGE;
    length.min(usize::try_from(left).unwrap_or(usize::MAX))
}

impl HostVisible for Window {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&mut self, offset: u64, size: u64, blob: BlobMapping) -> Result<(), MapError> {
        let length = blob.size;
        let bytes = match blob.file {
            None => BlobBytes::Renderers {
                resource_id: blob.resource_id,
            },
            Some(file) => {
                let mapped = check_blob_file(file.file(), length)
                    .map_err(|error| error.to_string())
                    .and_then(|()| usize::try_from(length).map_err(|error| error.to_string()))
                    .and_then(|length| {
                        MmapRegion::from_file(file, length).map_err(|error| error.to_string())
                    });
                BlobBytes::Mapped(mapped.map_err(|why| MapError { offset, size, why })?)
            }
        };
        let shown = Shown {
            size,
            length,
            bytes,
        };
        self.lock().insert(offset, shown);
        Ok(())
    }

    fn unmap(&mut self, offset: u64, size: u64) -> Result<(), MapError> {
        let removed = self.lock().remove(&offset);
        match removed {
            Some(shown) if shown.size == size => Ok(()),
            _ => Err(MapError {
                offset,
                size,
                why: "nothing is mapped there".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use vm_memory::FileOffset;

    use super::*;

    fn blob(resource_id: u32, file: Option<File>) -> BlobMapping {
        BlobMapping {
            resource_id,
            file: file.map(|file| FileOffset::new(file, 0)),
            address: None,
            size: 5000,
            map_info: 1,
        }
    }

    fn memory() -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("blob", flags).unwrap());
        ftruncate(&file, 5000).unwrap();
        file
    }

    fn read(window: &Window, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xee; length];
        window.read(offset, &mut bytes, |access, _| panic!("{access:?}"));
        bytes
    }

    fn write(window: &Window, offset: u64, bytes: &[u8]) {
        window.write(offset, bytes, |access, _| panic!("{access:?}"));
    }

    #[test]
    fn an_access_reaches_the_file_of_the_blob_and_nothing_behind_its_end() {
        let mut window = Window::new(64 << 10);
        let (one, other) = (memory(), memory());
        window
            .map(0x1000, 0x2000, blob(1, Some(one.try_clone().unwrap())))
            .unwrap();
        window.map(0x3000, 0x2000, blob(2, Some(other))).unwrap();
        write(&window, 0x1000 + 4992, &[7; 16]);
        let region = MmapRegion::<()>::from_file(FileOffset::new(one, 0), 5000).unwrap();
        let slice = region.get_slice(4990, 10).unwrap();
        let mut seen = [0; 10];
        slice.read_slice(&mut seen, 0).unwrap();
        assert_eq!(seen, [0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        // What the renderer writes is there at once.
        slice.write_slice(&[9; 10], 0).unwrap();
        assert_eq!(read(&window, 0x1000 + 4996, 8), [9, 9, 9, 9, 0, 0, 0, 0]);
        // One access over everything: no blob, one, the end of its page, the other.
        write(&window, 0x3000, &[5]);
        let all = read(&window, 0xff0, 0x2020);
        assert_eq!(all.iter().filter(|byte| **byte == 9).count(), 10);
        assert_eq!(all[0x2010], 5);
        assert_eq!(all[..0x10], [0; 16]);
    }

    #[test]
    fn what_was_unmapped_is_reached_no_more() {
        let mut window = Window::new(64 << 10);
        let file = memory();
        let mapped = blob(1, Some(file.try_clone().unwrap()));
        window.map(0, 0x2000, mapped).unwrap();
        write(&window, 0, &[1]);
        window.unmap(0, 0x2000).unwrap();
        write(&window, 0, &[2]);
        assert_eq!(read(&window, 0, 1), [0]);
        window.map(0x8000, 0x2000, blob(1, Some(file))).unwrap();
        assert_eq!(read(&window, 0x8000, 1), [1]);
        let error = window.unmap(0, 0x2000).unwrap_err();
        assert_eq!(error.why, "nothing is mapped there");
    }

    #[test]
    fn a_blob_without_a_file_is_the_renderers_access_page_by_page() {
        let mut window = Window::new(64 << 10);
        window.map(0x2000, 0x2000, blob(3, None)).unwrap();
        let mut asked = Vec::new();
        let mut bytes = [0; 8];
        window.read(0x2ffc, &mut bytes, |access, part| {
            asked.push((access.resource_id, access.offset, part.len()));
            part.fill(4);
        });
        assert_eq!(bytes, [4; 8]);
        window.write(0x2000 + 4996, &[1; 8], |access, part| {
            asked.push((access.resource_id, access.offset, part.len()));
        });
        // Nothing behind the blob's last byte.
        assert_eq!(asked, [(3, 0xffc, 4), (3, 0x1000, 4), (3, 4996, 4)]);
    }

    #[test]
    fn a_blob_whose_file_does_not_hold_it_is_refused_and_leaves_nothing() {
        let mut window = Window::new(64 << 10);
        let file = memory();
        ftruncate(&file, 100).unwrap();
        let error = window.map(0, 0x2000, blob(1, Some(file))).unwrap_err();
        assert_eq!(error.why, "its file has 100 bytes, and the blob 5000");
        let zero = File::open("/dev/zero").unwrap();
        let error = window.map(0, 0x2000, blob(1, Some(zero))).unwrap_err();
        assert!(error.why.contains("neither a memfd nor a dma-buf"));
        assert!(window.unmap(0, 0x2000).is_err());
    }
}

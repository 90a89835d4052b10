// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration access window: BARs by way of configuration space (VIRTIO 1.4 §4.1.4.9).
//!
//! It reaches every BAR. The memory behind [`BarLayout::SHARED_MEMORY`] is the VMM's, and may be on another thread, so
//! the function says where an access of it goes and the VMM makes it.

use arrayvec::ArrayVec;

use super::{MAX_WRITE, VirtioPciFunction};
use crate::bars::{BarLayout, SharedMemoryAccess};
use crate::config_space::Window;
use crate::effect::Effects;
use crate::transport::{PowerState, count};

impl VirtioPciFunction {
    /// What a read of `length` bytes of configuration space at `offset` reads in shared memory, if it does. The VMM
    /// reads that, and then configuration space with [`read_config_with`](Self::read_config_with).
    pub fn shared_memory_read(
        &self,
        offset: u16,
        length: usize,
    ) -> Option<SharedMemoryAccess<usize>> {
        let touched = self.space.touches_window(offset.into(), length);
        let Window { offset, length, .. } = self.shared_memory_window().filter(|_| touched)?;
        Some(SharedMemoryAccess {
            offset,
            what: length,
        })
    }

    /// What the write of configuration space that was just made with
    /// [`write_config`](VirtioPciFunction::write_config) writes to shared memory, if it does: the VMM writes that.
    pub fn shared_memory_write(
        &self,
        offset: u16,
        data: &[u8],
    ) -> Option<SharedMemoryAccess<ArrayVec<u8, 4>>> {
        let window = self.shared_memory_window()?;
        let covered = self.covers_window(&window, offset.into(), data.len());
        if !covered || data.len() > MAX_WRITE {
            return None;
        }
        let mut bytes = [0; 4];
        self.space.read(self.space.window_data(), &mut bytes);
        Some(SharedMemoryAccess {
            offset: window.offset,
            what: bytes.into_iter().take(window.length).collect(),
        })
    }

    /// Where the window shows shared memory that answers.
    fn shared_memory_window(&self) -> Option<Window> {
        let window = self.space.window()?;
        let inside = window.bar == BarLayout::SHARED_MEMORY
            && window.offset < self.bars.size(BarLayout::SHARED_MEMORY);
        (inside && self.transport().power() == PowerState::D0).then_some(window)
    }

    fn covers_window(&self, window: &Window, offset: usize, length: usize) -> bool {
        let start = self.space.window_data();
        let end = offset.saturating_add(length);
        offset <= start && end >= start.saturating_add(window.length)
    }

    /// Fills pci_cfg_data. `found` is what the VMM read in shared memory.
    pub(super) fn read_through_window(&mut self, found: &[u8]) {
        let mut data = [0; 4];
        if let Some(window) = self.space.window()
            && let Some(data) = data.get_mut(..window.length)
        {
            if self.transport().power() != PowerState::D0 {
                data.fill(0xff);
            } else if self.shared_memory_window().is_some() {
                data.iter_mut()
                    .zip(found)
                    .for_each(|(to, from)| *to = *from);
            } else {
                self.read_place(window.bar, window.offset, data);
            }
        }
        self.space.set(self.space.window_data(), &data);
    }

    /// Acts once a write covers all the bytes that the window is long.
    pub(super) fn write_through_window(
        &mut self,
        offset: usize,
        length: usize,
        effects: &mut Effects,
    ) {
        let Some(window) = self.space.window() else {
            return;
        };
        let covered = self.covers_window(&window, offset, length);
        if !covered || self.transport().power() == PowerState::D3hot {
            count(&mut self.counters().accesses_ignored);
            return;
        }
        if self.shared_memory_window().is_some() {
            // The VMM asks for it.
            return;
        }
        let mut data = [0; 4];
        self.space.read(self.space.window_data(), &mut data);
        if let Some(data) = data.get(..window.length) {
            self.write_place(window.bar, window.offset, data, effects);
        }
    }
}

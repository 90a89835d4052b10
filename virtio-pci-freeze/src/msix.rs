// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI-X (PCI 3.0 §6.8.2): which interrupts wait, and which may go.

use crate::saved_state::{RestoreError, SavedVector};

/// Bytes of one table entry.
pub(crate) const ENTRY_SIZE: u16 = 16;
/// Byte of an entry that holds the mask bit, bit 0.
const VECTOR_CONTROL: usize = 12;

/// Who decides whether a vector can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorOwner {
    /// The table in the function's BAR, as on real hardware.
    Function,
    /// The VMM keeps the table from us (vfio-user) and says which vectors are connected.
    Vmm,
}

/// An interrupt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The MSI-X vector.
    pub vector: u16,
    /// Message address; 0 where the VMM owns the table.
    pub address: u64,
    /// Message data; 0 where the VMM owns the table.
    pub data: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vector {
    entry: [u8; ENTRY_SIZE as usize],
    connected: bool,
    pending: bool,
}

impl Vector {
    /// After reset every entry is masked (PCI 3.0 §6.8.2.9).
    const RESET: Self = {
        let mut entry = [0; ENTRY_SIZE as usize];
        entry[VECTOR_CONTROL] = 1;
        Self {
            entry,
            connected: false,
            pending: false,
        }
    };

    fn save(&self) -> SavedVector {
        let Self {
            entry,
            connected: _,
            pending,
        } = *self;
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            d0,
            d1,
            d2,
            d3,
            c0,
            c1,
            c2,
            c3,
        ] = entry;
        SavedVector {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
            control: u32::from_le_bytes([c0, c1, c2, c3]),
            pending,
        }
    }

    fn restore(saved: &SavedVector) -> Self {
        let SavedVector {
            address,
            data,
            control,
            pending,
        } = *saved;
        let bytes = address.to_le_bytes().into_iter();
        let bytes = bytes.chain(data.to_le_bytes()).chain(control.to_le_bytes());
        let mut vector = Self {
            pending,
            ..Self::RESET
        };
        vector
            .entry
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        vector
    }

    fn is_masked(&self) -> bool {
        let [.., control, _, _, _] = self.entry;
        control & 1 != 0
    }
}

/// The MSI-X half of a function.
#[derive(Clone, Debug)]
pub(crate) struct Msix {
    owner: VectorOwner,
    enabled: bool,
    function_mask: bool,
    vectors: Vec<Vector>,
    /// How many vectors wait, so that an access need not look at all of them.
    waiting: usize,
}

impl Msix {
    pub(crate) fn new(owner: VectorOwner, vectors: u16) -> Self {
        Self {
            owner,
            enabled: false,
            function_mask: false,
            vectors: vec![Vector::RESET; usize::from(vectors)],
            waiting: 0,
        }
    }

    pub(crate) fn owner(&self) -> VectorOwner {
        self.owner
    }

    pub(crate) fn set_control(&mut self, enabled: bool, function_mask: bool) {
        self.enabled = enabled;
        self.function_mask = function_mask;
    }

    /// Whether interrupts go out as messages rather than over INTx.
    pub(crate) fn is_enabled(&self) -> bool {
        let connected = || self.vectors.iter().any(|vector| vector.connected);
        self.enabled || (self.owner == VectorOwner::Vmm && connected())
    }

    /// Marks `vector` as waiting. [`take`](Self::take) decides when it goes.
    pub(crate) fn raise(&mut self, vector: u16) {
        if let Some(vector) = self.vectors.get_mut(usize::from(vector))
            && !vector.pending
        {
            vector.pending = true;
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    pub(crate) fn connect(&mut self, vector: u16, connected: bool) {
        if let Some(vector) = self.vectors.get_mut(usize::from(vector)) {
            vector.connected = connected;
        }
    }

    /// Whether [`take`](Self::take) would find an interrupt.
    pub(crate) fn has_deliverable(&self) -> bool {
        let any = || {
            self.vectors
                .iter()
                .any(|vector| self.is_deliverable(vector))
        };
        self.waiting > 0 && any()
    }

    /// Takes the next interrupt that may go.
    pub(crate) fn take(&mut self) -> Option<Interrupt> {
        if self.waiting == 0 {
            return None;
        }
        let found = self
            .vectors
            .iter()
            .position(|vector| self.is_deliverable(vector))?;
        let vector = self.vectors.get_mut(found)?;
        vector.pending = false;
        self.waiting = self.waiting.saturating_sub(1);
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, ..] = vector.entry;
        Some(Interrupt {
            vector: u16::try_from(found).ok()?,
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        })
    }

    /// A virtio reset: nothing waits any more. The table belongs to PCI and stays.
    pub(crate) fn clear_pending(&mut self) {
        self.vectors
            .iter_mut()
            .for_each(|vector| vector.pending = false);
        self.waiting = 0;
    }

    /// A function reset: the table goes too. What waits stays where the device is held.
    pub(crate) fn reset_table(&mut self) {
        self.set_control(false, false);
        for vector in &mut self.vectors {
            vector.entry = Vector::RESET.entry;
        }
    }

    pub(crate) fn save(&self) -> Vec<SavedVector> {
        // The enable and mask bits are configuration space's, and the ways to the guest the VMM's.
        let Self {
            owner: _,
            enabled: _,
            function_mask: _,
            vectors,
            // Follows from the vectors.
            waiting: _,
        } = self;
        vectors.iter().map(Vector::save).collect()
    }

    pub(crate) fn restore(&mut self, saved: &[SavedVector]) -> Result<(), RestoreError> {
        if saved.len() != self.vectors.len() {
            return Err(RestoreError::Mismatch {
                what: "number of vectors",
            });
        }
        for (vector, saved) in self.vectors.iter_mut().zip(saved) {
            *vector = Vector::restore(saved);
        }
        self.waiting = self.vectors.iter().filter(|vector| vector.pending).count();
        Ok(())
    }

    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (at, to) in (offset..).zip(data) {
            let vector = self.vectors.get(entry_index(at));
            let byte = vector.and_then(|vector| vector.entry.get(byte_index(at)));
            *to = byte.copied().unwrap_or(0);
        }
    }

    pub(crate) fn write_table(&mut self, offset: u64, data: &[u8]) {
        for (at, from) in (offset..).zip(data) {
            let vector = self.vectors.get_mut(entry_index(at));
            let byte = vector.and_then(|vector| vector.entry.get_mut(byte_index(at)));
            if let Some(byte) = byte {
                *byte = *from;
            }
        }
    }

    /// The pending bit array, read-only to software (PCI 3.0 §6.8.2.10).
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, to) in (offset..).zip(data) {
            let first = index(at.saturating_mul(8));
            let byte = self.vectors.iter().skip(first).take(8);
            *to = byte
                .rev()
                .fold(0, |bits, vector| bits << 1 | u8::from(vector.pending));
        }
    }

    fn is_deliverable(&self, vector: &Vector) -> bool {
        let open = match self.owner {
            VectorOwner::Function => self.enabled && !self.function_mask && !vector.is_masked(),
            VectorOwner::Vmm => vector.connected,
        };
        vector.pending && open
    }
}

const ENTRY_SHIFT: u32 = ENTRY_SIZE.trailing_zeros();

fn entry_index(offset: u64) -> usize {
    index(offset >> ENTRY_SHIFT)
}

fn byte_index(offset: u64) -> usize {
    index(offset & u64::from(ENTRY_SIZE - 1))
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

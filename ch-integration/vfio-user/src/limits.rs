// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every bound that a VMM meets.

use std::time::Duration;

/// Bytes of data in one region access (`max_data_xfer_size`). It is the protocol's default, which a client that ignores
/// what the server says keeps to as well.
pub const MAX_DATA_XFER: u32 = 1 << 20;
/// Files that come with one message (`max_msg_fds`). Cloud Hypervisor sends up to 16 whatever the server says.
pub const MAX_MESSAGE_FDS: usize = 16;
/// Bytes of the JSON in a VERSION message. What the clients that we know send has less than 300.
pub const MAX_VERSION_DATA: usize = 4096;
/// Maps at one time (`max_dma_maps`). Each is a mapping of this process, of which Linux allows 65 530
/// (vm.max_map_count), and the renderer needs some too.
pub const MAX_DMA_MAPS: usize = 32_768;
/// What a map's address, size and place in its file are multiples of, in bytes (`pgsizes`).
pub const PAGE_SIZE: u64 = 4096;
/// Requests that the device has not answered. Beyond, the VMM's next message waits in its socket.
pub const MAX_IN_FLIGHT: usize = 64;
/// Bytes of replies that the VMM has not taken. Beyond, its next message waits in its socket. Two
/// of the longest, with their headers.
pub const MAX_UNSENT: usize = 2 * MAX_DATA_XFER as usize + 4096;
/// How long a client may take from its connection to the end of its VERSION message.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// How long a client with a valid VERSION waits for the device while what the last VMM left behind is cleared up. QEMU
/// waits 5 s for an answer.
pub const ADMISSION_TIME: Duration = Duration::from_secs(4);
/// How long a VMM may take from a message's first byte to its last, and for taking a reply out of its socket.
pub const MESSAGE_TIME: Duration = Duration::from_secs(2);
/// Clients that have not finished their handshake. A further one takes the place of the oldest.
pub const MAX_WAITING: usize = 8;

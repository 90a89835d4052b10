// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the VMM decides about a GPU before the guest sees it.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::protocol::{MAX_SCANOUTS, feature, wire};

/// Smallest and largest width or height of an output, in pixels: the range an EDID with a
/// DisplayID timing and common guest drivers agree on.
const OUTPUT_DIMENSION: RangeInclusive<u32> = 16..=16384;

/// Refused by the constructor: the caller's mistake, never the guest's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A GPU has 1 to 16 outputs (VIRTIO 1.4 §5.7.4).
    #[error("A GPU cannot have {count} outputs, only 1 to 16")]
    OutputCount {
        /// How many were asked for.
        count: usize,
    },
    /// An output is too small or too large.
    #[error("Output {index} cannot be {width}x{height}, only 16 to 16384 each way")]
    OutputSize {
        /// Which output.
        index: usize,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// There is no such output.
    #[error("There is no output {index}, only {count}")]
    NoSuchOutput {
        /// Which output.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A limit under which no guest could show a picture.
    #[error("The limit {limit} cannot be {value}")]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// A feature this device does not implement.
    #[error("The features {features:#x} cannot be offered")]
    Features {
        /// The features (as a mask) at fault.
        features: u64,
    },
}

/// One display output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Preferred width in pixels.
    pub width: u32,
    /// Preferred height in pixels.
    pub height: u32,
}

/// What a guest may make the host hold. Each is checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of pixels, scanout copies, backing tables and attachments to contexts, all together.
    pub max_host_bytes: u64,
    /// Resources alive or retained at a time.
    pub max_resources: usize,
    /// Guest memory ranges of one backing.
    pub max_backing_entries: u32,
    /// Width or height of a resource, in pixels.
    pub max_resource_dimension: u32,
    /// Rendering contexts at a time.
    pub max_contexts: usize,
    /// Bytes of one SUBMIT_3D command stream.
    pub max_submit_bytes: u32,
    /// Estimated bytes of resources that live in the renderer, all together.
    pub max_renderer_bytes: u64,
}

impl Default for Limits {
    /// - 1 GiB holds 16 outputs of 3840 × 2160, each with two framebuffers (1 061 683 200 bytes)
    ///   and a cursor. The host commits it page by page as the guest transfers into it.
    /// - 65 536 entries back 256 MiB of single 4 KiB pages: one framebuffer across four 4K outputs
    ///   (132 MiB), which QEMU's 16 384 entries would not hold.
    fn default() -> Self {
        Self {
            max_host_bytes: 1 << 30,
            max_resources: 16_384,
            max_backing_entries: 65_536,
            max_resource_dimension: 32_768,
            max_contexts: 1024,
            max_submit_bytes: 1 << 20,
            max_renderer_bytes: 4 << 30,
        }
    }
}

impl Limits {
    /// The longest request that any command can be, in bytes: what a caller needs to copy from
    /// the readable part of a descriptor chain, and no more.
    pub fn max_command_bytes(&self) -> usize {
        let entries =
            (self.max_backing_entries as usize).saturating_mul(size_of::<wire::MemEntry>());
        let backing = size_of::<wire::ResourceCreateBlob>().saturating_add(entries);
        // Linux sends at most one in-fence per ring with a submission; 64 le64 are 512 bytes.
        let submit = size_of::<wire::CmdSubmit>()
            .saturating_add(512)
            .saturating_add(self.max_submit_bytes as usize);
        backing.max(submit)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (limit, value) in [
            ("max_host_bytes", self.max_host_bytes),
            ("max_resources", self.max_resources as u64),
            ("max_backing_entries", self.max_backing_entries.into()),
            ("max_resource_dimension", self.max_resource_dimension.into()),
        ] {
            if value == 0 {
                return Err(ConfigError::Limit { limit, value });
            }
        }
        Ok(())
    }
}

/// A GPU as the VMM wants it.
///
/// ```
/// use virtio_gpu_s3::{GpuConfig, OutputConfig};
///
/// let config = GpuConfig::new(vec![OutputConfig { width: 1280, height: 800 }])?;
/// assert_eq!(config.outputs().len(), 1);
/// # Ok::<(), virtio_gpu_s3::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    outputs: Vec<OutputConfig>,
    limits: Limits,
    features: u64,
    uuid_namespace: u64,
}

impl GpuConfig {
    /// Everything this device implements without a 3D renderer.
    pub const FEATURES_2D: u64 = feature::EDID | feature::RESOURCE_UUID | feature::RESOURCE_BLOB;
    /// Everything it implements with one.
    pub const FEATURES_3D: u64 = Self::FEATURES_2D | feature::VIRGL | feature::CONTEXT_INIT;

    /// A GPU with these outputs, default limits and every feature.
    ///
    /// # Errors
    /// Refuses no output, more than 16, or one of an impossible size.
    pub fn new(outputs: Vec<OutputConfig>) -> Result<Self, ConfigError> {
        if outputs.is_empty() || outputs.len() > MAX_SCANOUTS {
            return Err(ConfigError::OutputCount {
                count: outputs.len(),
            });
        }
        for (index, output) in outputs.iter().enumerate() {
            check_output(index, *output)?;
        }
        Ok(Self {
            outputs,
            limits: Limits::default(),
            features: Self::FEATURES_3D,
            uuid_namespace: 0,
        })
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// Refuses a limit of 0 where no guest could show a picture.
    pub fn with_limits(self, limits: Limits) -> Result<Self, ConfigError> {
        limits.check()?;
        Ok(Self { limits, ..self })
    }

    /// The same offering at most these features (as a mask). Those of 3D are offered only if the
    /// renderer has a capset.
    ///
    /// # Errors
    /// Refuses features that this device does not implement.
    pub fn with_features(self, features: u64) -> Result<Self, ConfigError> {
        let unknown = features & !Self::FEATURES_3D;
        if unknown != 0 {
            return Err(ConfigError::Features { features: unknown });
        }
        Ok(Self { features, ..self })
    }

    /// The same with a random number that sets this GPU's UUIDs apart from those of any other
    /// device of the guest. The model has no source of randomness of its own.
    pub fn with_uuid_namespace(self, uuid_namespace: u64) -> Self {
        Self {
            uuid_namespace,
            ..self
        }
    }

    /// The outputs, by scanout id.
    pub fn outputs(&self) -> &[OutputConfig] {
        &self.outputs
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The features to offer at most, as a mask.
    pub fn features(&self) -> u64 {
        self.features
    }

    pub(crate) fn uuid_namespace(&self) -> u64 {
        self.uuid_namespace
    }

    pub(crate) fn set_output(
        &mut self,
        index: usize,
        output: OutputConfig,
    ) -> Result<(), ConfigError> {
        check_output(index, output)?;
        let count = self.outputs.len();
        let slot = self
            .outputs
            .get_mut(index)
            .ok_or(ConfigError::NoSuchOutput { index, count })?;
        *slot = output;
        Ok(())
    }
}

fn check_output(index: usize, output: OutputConfig) -> Result<(), ConfigError> {
    let OutputConfig { width, height } = output;
    if !OUTPUT_DIMENSION.contains(&width) || !OUTPUT_DIMENSION.contains(&height) {
        return Err(ConfigError::OutputSize {
            index,
            width,
            height,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: OutputConfig = OutputConfig {
        width: 1920,
        height: 1080,
    };

    #[test]
    fn a_gpu_has_one_to_sixteen_outputs() {
        GpuConfig::new(vec![HD; 1]).unwrap();
        GpuConfig::new(vec![HD; 16]).unwrap();
        for count in [0, 17] {
            assert_eq!(
                GpuConfig::new(vec![HD; count]),
                Err(ConfigError::OutputCount { count })
            );
        }
    }

    #[test]
    fn an_output_of_an_impossible_size_is_refused() {
        for (width, height) in [(0, 600), (800, 15), (16385, 600), (800, u32::MAX)] {
            let output = OutputConfig { width, height };
            GpuConfig::new(vec![HD, output]).unwrap_err();
        }
    }

    #[test]
    fn the_default_limit_holds_sixteen_4k_outputs_twice_and_their_cursors() {
        let frame = 3840 * 2160 * 4;
        let cursor = 64 * 64 * 4;
        assert!(16 * (2 * frame + cursor) <= Limits::default().max_host_bytes);
    }

    #[test]
    fn a_feature_that_is_not_implemented_cannot_be_offered() {
        let config = GpuConfig::new(vec![HD]).unwrap();
        config.clone().with_features(feature::EDID).unwrap();
        assert_eq!(
            config.with_features(feature::EDID | feature::BLOB_ALIGNMENT),
            Err(ConfigError::Features {
                features: feature::BLOB_ALIGNMENT
            })
        );
    }
}

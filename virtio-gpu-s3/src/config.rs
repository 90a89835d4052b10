// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the VMM decides about a GPU before the guest sees it.

use std::ops::RangeInclusive;

use crate::config_error::ConfigError;
use crate::limits::Limits;
use crate::protocol::{MAX_SCANOUTS, feature};

/// One display output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Preferred width in pixels.
    pub width: u32,
    /// Preferred height in pixels.
    pub height: u32,
}

impl OutputConfig {
    /// Smallest and largest width or height, in pixels: the range an EDID with a DisplayID timing and common guest
    /// drivers agree on.
    pub const DIMENSIONS: RangeInclusive<u32> = 16..=16384;
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
    refresh_hz: u32,
}

impl GpuConfig {
    /// Lowest and highest refresh rate of the outputs, in Hz.
    pub const REFRESH_RATES: RangeInclusive<u32> = 24..=240;
    /// Everything this device implements without a 3D renderer.
    ///
    /// VIRTIO_GPU_F_BLOB_ALIGNMENT is not among it: it tells guests to count in pages of a host whose are larger than
    /// theirs, and mappings here are in the 4 KiB that every guest counts in.
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
            refresh_hz: 60,
        })
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// Refuses a limit outside its bounds.
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

    /// The same with this refresh rate in the EDIDs of its outputs, in Hz, instead of 60. A guest's compositor draws at
    /// this pace; the device shows whatever is flushed, whenever.
    ///
    /// # Errors
    /// Refuses a rate outside [`Self::REFRESH_RATES`].
    pub fn with_refresh_rate(self, hz: u32) -> Result<Self, ConfigError> {
        if !Self::REFRESH_RATES.contains(&hz) {
            return Err(ConfigError::RefreshRate { hz });
        }
        Ok(Self {
            refresh_hz: hz,
            ..self
        })
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

    pub(crate) fn refresh_hz(&self) -> u32 {
        self.refresh_hz
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
    let possible = OutputConfig::DIMENSIONS;
    if !possible.contains(&width) || !possible.contains(&height) {
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
    fn a_refresh_rate_that_no_display_has_is_refused() {
        let config = GpuConfig::new(vec![HD]).unwrap();
        for hz in [24, 240] {
            let config = config.clone().with_refresh_rate(hz).unwrap();
            assert_eq!(config.refresh_hz(), hz);
        }
        for hz in [0, 23, 241, u32::MAX] {
            let refused = config.clone().with_refresh_rate(hz);
            assert_eq!(refused, Err(ConfigError::RefreshRate { hz }));
        }
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

// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol, as a table: virglrenderer's `virgl_protocol.h` and what its decoder makes of it.

/// The number of a command. One that nobody knows is a value like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u8);

/// The kind of an object. One that nobody knows is a value like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectType(pub u8);

/// How many dwords a command has after its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Whatever it likes.
    Any,
    /// So many.
    Exactly(usize),
    /// So many, or more.
    AtLeast(usize),
    /// `head`, and any number of `row`.
    #[expect(missing_docs, reason = "the variant says it")]
    Rows { head: usize, row: usize },
}

impl Length {
    /// Whether a command may have so many.
    pub fn allows(self, length: usize) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(needed) => length == needed,
            Self::AtLeast(needed) => length >= needed,
            Self::Rows { head, row } => length
                .checked_sub(head)
                .is_some_and(|rest| rest.checked_rem(row).unwrap_or(rest) == 0),
        }
    }

    /// The least.
    pub fn least(self) -> usize {
        match self {
            Self::Any => 0,
            Self::Exactly(needed) | Self::AtLeast(needed) => needed,
            Self::Rows { head, .. } => head,
        }
    }
}

/// What a command leaves behind in the renderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but what is in resources, which can be read back.
    Action,
    /// An object begins or ends.
    Object,
    /// A value that stays until the next of its kind.
    Sticky(Sticky),
    /// A sub-context begins, ends, or is the one that the next commands are for.
    SubContext,
    /// A query runs, or has a result.
    Query,
    /// A resource begins, or is given a type.
    Resource,
    /// Something that cannot be made again: video.
    NoForm,
}

/// How a piece of sticky state is told from others, and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// What replaces what.
    pub keyed: Keyed,
    /// What its dwords name.
    pub names: Names,
}

/// Which value a command replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// There is one.
    Once,
    /// There is one for each kind of object, which is in the header.
    ByObjectType,
    /// There is one for each value of so many first dwords.
    ByFirst(usize),
    /// There is one for each stage, which is the dword there.
    ByStageAt(usize),
    /// There are slots, and the command has values for some that follow each other: behind the stage, if there is one,
    /// and the first slot, it has a row of so many dwords for each.
    #[expect(missing_docs, reason = "the variant says it")]
    Slots { staged: bool, row: usize },
}

/// Which dwords of a value (of a slot's row, if there are slots) name something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// None.
    Nothing,
    /// From `first` on, every `every`-th is an object of that kind; 0 is none.
    #[expect(missing_docs, reason = "the variant says it")]
    Objects {
        kind: ObjectType,
        first: usize,
        every: usize,
    },
    /// The one at `first` is an object of the kind in the header.
    Bound,
    /// From `first` on, every `every`-th is a resource; 0 is none.
    #[expect(missing_docs, reason = "the variant says it")]
    Resources { first: usize, every: usize },
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name, as the header has it.
    pub name: &'static str,
    /// Its length.
    pub length: Length,
    /// What it leaves behind.
    pub effect: Effect,
}

/// There is only one of it.
const ALONE: usize = usize::MAX;

const fn once(names: Names) -> Effect {
    Effect::Sticky(Sticky {
        keyed: Keyed::Once,
        names,
    })
}

const fn slots(staged: bool, row: usize, names: Names) -> Effect {
    Effect::Sticky(Sticky {
        keyed: Keyed::Slots { staged, row },
        names,
    })
}

const fn keyed(keyed: Keyed, names: Names) -> Effect {
    Effect::Sticky(Sticky { keyed, names })
}

const fn objects(kind: ObjectType, first: usize, every: usize) -> Names {
    Names::Objects { kind, first, every }
}

const fn resources(first: usize, every: usize) -> Names {
    Names::Resources { first, every }
}

const fn rows(head: usize, row: usize) -> Length {
    Length::Rows { head, row }
}

macro_rules! commands {
    ($($name:ident = $number:literal, $length:expr, $effect:expr;)*) => {
        impl Number {
            $(#[doc = concat!("`VIRGL_CCMD_", stringify!($name), "`")] pub const $name: Self = Self($number);)*

            /// What is known of it, `None` if nothing.
            #[inline]
            pub fn info(self) -> Option<&'static Info> {
                TABLE.get(usize::from(self.0))
            }
        }

        /// By number: there is no gap.
        pub const TABLE: &[Info] = {
            use Effect::*;
            use Length::*;
            &[$(Info { name: stringify!($name), length: $length, effect: $effect },)*]
        };

        // Each stands at its number.
        const _: () = {
            let mut rest: &[u8] = &[$($number),*];
            let mut expected = 0;
            while let [number, behind @ ..] = rest {
                assert!(*number == expected);
                expected = expected.saturating_add(1);
                rest = behind;
            }
        };
    };
}

commands! {
    NOP = 0, Any, Action;
    CREATE_OBJECT = 1, AtLeast(1), Object;
    BIND_OBJECT = 2, Exactly(1), keyed(Keyed::ByObjectType, Names::Bound);
    DESTROY_OBJECT = 3, Exactly(1), Object;
    SET_VIEWPORT_STATE = 4, rows(1, 6), slots(false, 6, Names::Nothing);
    SET_FRAMEBUFFER_STATE = 5, AtLeast(2), once(objects(ObjectType::SURFACE, 1, 1));
    SET_VERTEX_BUFFERS = 6, rows(0, 3), once(resources(2, 3));
    CLEAR = 7, Exactly(8), Action;
    DRAW_VBO = 8, AtLeast(12), Action;
    RESOURCE_INLINE_WRITE = 9, AtLeast(12), Action;
    SET_SAMPLER_VIEWS = 10, rows(2, 1), slots(true, 1, objects(ObjectType::SAMPLER_VIEW, 0, ALONE));
    SET_INDEX_BUFFER = 11, rows(1, 2), once(resources(0, ALONE));
    SET_CONSTANT_BUFFER = 12, AtLeast(2), keyed(Keyed::ByStageAt(0), Names::Nothing);
    SET_STENCIL_REF = 13, Exactly(1), once(Names::Nothing);
    SET_BLEND_COLOR = 14, Exactly(4), once(Names::Nothing);
    SET_SCISSOR_STATE = 15, rows(1, 2), slots(false, 2, Names::Nothing);
    BLIT = 16, Exactly(21), Action;
    RESOURCE_COPY_REGION = 17, Exactly(13), Action;
    BIND_SAMPLER_STATES = 18, rows(2, 1), slots(true, 1, objects(ObjectType::SAMPLER_STATE, 0, ALONE));
    BEGIN_QUERY = 19, Exactly(1), Query;
    END_QUERY = 20, Exactly(1), Query;
    GET_QUERY_RESULT = 21, Exactly(2), Query;
    SET_POLYGON_STIPPLE = 22, Exactly(32), once(Names::Nothing);
    SET_CLIP_STATE = 23, Exactly(32), once(Names::Nothing);
    SET_SAMPLE_MASK = 24, Exactly(1), once(Names::Nothing);
    SET_STREAMOUT_TARGETS = 25, AtLeast(1), once(objects(ObjectType::STREAMOUT_TARGET, 1, 1));
    SET_RENDER_CONDITION = 26, Exactly(3), once(objects(ObjectType::QUERY, 0, ALONE));
    SET_UNIFORM_BUFFER = 27, Exactly(5), keyed(Keyed::ByFirst(2), resources(4, ALONE));
    SET_SUB_CTX = 28, Exactly(1), SubContext;
    CREATE_SUB_CTX = 29, Exactly(1), SubContext;
    DESTROY_SUB_CTX = 30, Exactly(1), SubContext;
    BIND_SHADER = 31, Exactly(2), keyed(Keyed::ByStageAt(1), objects(ObjectType::SHADER, 0, ALONE));
    SET_TESS_STATE = 32, Exactly(6), once(Names::Nothing);
    SET_MIN_SAMPLES = 33, Exactly(1), once(Names::Nothing);
    SET_SHADER_BUFFERS = 34, AtLeast(2), slots(true, 3, resources(2, ALONE));
    SET_SHADER_IMAGES = 35, AtLeast(2), slots(true, 5, resources(4, ALONE));
    MEMORY_BARRIER = 36, Exactly(1), Action;
    LAUNCH_GRID = 37, Exactly(8), Action;
    SET_FRAMEBUFFER_STATE_NO_ATTACH = 38, Exactly(2), once(Names::Nothing);
    TEXTURE_BARRIER = 39, Exactly(1), Action;
    SET_ATOMIC_BUFFERS = 40, AtLeast(2), slots(false, 3, resources(2, ALONE));
    SET_DEBUG_FLAGS = 41, Any, Action;
    GET_QUERY_RESULT_QBO = 42, Exactly(6), Query;
    TRANSFER3D = 43, AtLeast(13), Action;
    END_TRANSFERS = 44, Any, Action;
    COPY_TRANSFER3D = 45, AtLeast(14), Action;
    SET_TWEAKS = 46, AtLeast(2), keyed(Keyed::ByFirst(1), Names::Nothing);
    CLEAR_TEXTURE = 47, Exactly(12), Action;
    PIPE_RESOURCE_CREATE = 48, Exactly(11), Resource;
    PIPE_RESOURCE_SET_TYPE = 49, rows(8, 2), Resource;
    GET_MEMORY_INFO = 50, Exactly(1), Action;
    SEND_STRING_MARKER = 51, Any, Action;
    // It makes a program ready before its first draw: nothing but time tells whether it was sent.
    LINK_SHADER = 52, Exactly(6), Action;
    CREATE_VIDEO_CODEC = 53, Any, NoForm;
    DESTROY_VIDEO_CODEC = 54, Any, NoForm;
    CREATE_VIDEO_BUFFER = 55, Any, NoForm;
    DESTROY_VIDEO_BUFFER = 56, Any, NoForm;
    BEGIN_FRAME = 57, Any, NoForm;
    DECODE_MACROBLOCK = 58, Any, NoForm;
    DECODE_BITSTREAM = 59, Any, NoForm;
    ENCODE_BITSTREAM = 60, Any, NoForm;
    END_FRAME = 61, Any, NoForm;
    CLEAR_SURFACE = 62, Any, Action;
    GET_PIPE_RESOURCE_LAYOUT = 63, Any, Action;
    // The newest, which no header that was read has.
    NEWEST = 64, Any, NoForm;
}

macro_rules! object_types {
    ($($name:ident = $number:literal, $length:expr, $resource:expr;)*) => {
        impl ObjectType {
            $(#[doc = concat!("`VIRGL_OBJECT_", stringify!($name), "`")] pub const $name: Self = Self($number);)*

            /// How long its creation is, with the handle; `None` if nobody knows the kind.
            pub fn length(self) -> Option<Length> {
                use Length::*;
                match self {
                    $(Self::$name => Some($length),)*
                    _ => None,
                }
            }

            /// Which dword of its creation names a resource that it is made of.
            pub fn resource_at(self) -> Option<usize> {
                match self {
                    $(Self::$name => $resource,)*
                    _ => None,
                }
            }
        }
    };
}

object_types! {
    BLEND = 1, Exactly(11), None;
    RASTERIZER = 2, Exactly(9), None;
    DSA = 3, Exactly(5), None;
    SHADER = 4, AtLeast(5), None;
    VERTEX_ELEMENTS = 5, rows(1, 4), None;
    SAMPLER_VIEW = 6, Exactly(6), Some(1);
    SAMPLER_STATE = 7, Exactly(9), None;
    SURFACE = 8, Exactly(5), Some(1);
    QUERY = 9, Exactly(4), Some(3);
    STREAMOUT_TARGET = 10, Exactly(4), Some(1);
    MSAA_SURFACE = 11, Exactly(6), Some(1);
}

impl ObjectType {
    /// As what commands name it: both kinds of surface are one.
    pub fn named_as(self) -> Self {
        match self {
            Self::MSAA_SURFACE => Self::SURFACE,
            kind => kind,
        }
    }
}

/// Stages that a shader can be of (vertex, fragment, geometry, tessellation's two, compute).
pub const STAGES: u32 = 6;
/// Slots of a kind. virglrenderer has 16 of viewports and 32 of the others; one that has more is in sight.
pub const MAX_SLOTS: u32 = 128;

// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What streams leave behind, and that it is made again.

use std::fs::{read, read_dir};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use virgl_stream::test_utils::{program, run, sets, slotted};
use virgl_stream::{
    Command, Loss, MAX_BYTES, MAX_OBJECTS, MAX_SUB_CONTEXTS, Number, ObjectType, Replay, Shadow,
    Warning, commands,
};

/// A stream under construction.
#[derive(Default)]
struct Stream(Vec<u32>);

impl Stream {
    fn add(mut self, number: Number, object: u8, body: &[u32]) -> Self {
        let command = Command::new(number, object, body);
        command.encode(&mut self.0).unwrap();
        self
    }

    fn blend(self, handle: u32) -> Self {
        self.add(
            Number::CREATE_OBJECT,
            ObjectType::BLEND.0,
            &[handle, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        )
    }

    fn elements(self, handle: u32) -> Self {
        let body = [handle, 0, 0, 0, 31];
        self.add(Number::CREATE_OBJECT, ObjectType::VERTEX_ELEMENTS.0, &body)
    }

    fn surface(self, handle: u32, resource: u32) -> Self {
        let body = [handle, resource, 1, 0, 0];
        self.add(Number::CREATE_OBJECT, ObjectType::SURFACE.0, &body)
    }

    fn view(self, handle: u32, resource: u32) -> Self {
        let body = [handle, resource, 1, 0, 0, 0];
        self.add(Number::CREATE_OBJECT, ObjectType::SAMPLER_VIEW.0, &body)
    }

    fn query(self, handle: u32) -> Self {
        let body = [handle, 0, 0, 1];
        self.add(Number::CREATE_OBJECT, ObjectType::QUERY.0, &body)
    }

    fn bind(self, kind: ObjectType, handle: u32) -> Self {
        self.add(Number::BIND_OBJECT, kind.0, &[handle])
    }

    fn destroy(self, handle: u32) -> Self {
        self.add(Number::DESTROY_OBJECT, 0, &[handle])
    }

    fn fed(&self) -> Shadow {
        let mut shadow = Shadow::default();
        shadow.feed(&self.0);
        shadow
    }

    fn replay(&self) -> Replay {
        self.fed().replay().unwrap()
    }
}

fn new() -> Stream {
    Stream::default()
}

/// The numbers and bodies of a replay's commands, without those that choose sub-contexts.
fn list(replay: &Replay) -> Vec<(Number, Vec<u32>)> {
    let all = commands(replay.words()).map(Result::unwrap);
    let all = all.map(|(_, command)| (command.number, command.body.to_vec()));
    all.filter(|(number, _)| *number != Number::SET_SUB_CTX)
        .collect()
}

#[test]
fn an_object_that_was_destroyed_leaves_nothing_and_its_bytes_come_back() {
    let before = new().fed().bytes();
    let stream = new().blend(1).elements(2).destroy(1).destroy(2).destroy(3);
    assert_eq!(list(&stream.replay()), []);
    assert_eq!(stream.fed().bytes(), before);
}

#[test]
fn of_a_piece_of_state_the_last_value_is_kept() {
    let mut stream = new();
    for value in 0..100 {
        stream = stream.add(Number::SET_STENCIL_REF, 0, &[value]);
        stream = stream.add(Number::SET_CONSTANT_BUFFER, 0, &[value % 2, 0, value]);
    }
    let expected = [
        (Number::SET_CONSTANT_BUFFER, vec![0, 0, 98]),
        (Number::SET_CONSTANT_BUFFER, vec![1, 0, 99]),
        (Number::SET_STENCIL_REF, vec![99]),
    ];
    assert_eq!(list(&stream.replay()), expected);
}

#[test]
fn what_is_destroyed_and_bound_is_made_bound_and_destroyed_again() {
    let stream = new().blend(1).bind(ObjectType::BLEND, 1).destroy(1);
    let list = list(&stream.replay());
    let numbers: Vec<_> = list.iter().map(|(number, _)| *number).collect();
    let expected = [
        Number::CREATE_OBJECT,
        Number::BIND_OBJECT,
        Number::DESTROY_OBJECT,
    ];
    assert_eq!(numbers, expected);
    let handle = list[0].1[0];
    assert_eq!([handle, handle], [list[1].1[0], list[2].1[0]]);
    // Once another is bound nothing is left of it.
    let stream = stream.blend(2).bind(ObjectType::BLEND, 2).destroy(2);
    let stream = stream.bind(ObjectType::BLEND, 0);
    assert_eq!(stream.replay(), new().replay());
}

#[test]
fn a_handle_may_be_another_object_while_what_had_it_is_still_bound() {
    let stream = new().blend(7).bind(ObjectType::BLEND, 7).destroy(7);
    let stream = stream.elements(7).bind(ObjectType::VERTEX_ELEMENTS, 7);
    let list = list(&stream.replay());
    let bound: Vec<_> = list
        .iter()
        .filter(|(number, _)| *number == Number::BIND_OBJECT)
        .map(|(_, body)| body[0])
        .collect();
    // By kind: the blend first, under a handle that is free.
    assert_eq!(bound.len(), 2);
    assert!(bound[0] != 7 && bound[1] == 7, "{bound:?}");
}

#[test]
fn vertex_elements_and_states_of_samplers_are_unbound_when_they_are_destroyed() {
    let sampler = [3, 0, 0, 0, 0, 0, 0, 0, 0];
    let stream = new()
        .elements(1)
        .bind(ObjectType::VERTEX_ELEMENTS, 1)
        .add(Number::CREATE_OBJECT, ObjectType::SAMPLER_STATE.0, &sampler)
        .add(Number::BIND_SAMPLER_STATES, 0, &[1, 0, 3, 3])
        .destroy(1)
        .destroy(3);
    assert_eq!(stream.replay(), new().replay());
    assert_eq!(stream.fed().bytes(), new().fed().bytes());
}

#[test]
fn all_parts_of_a_long_shader_are_kept_in_order() {
    let create = Number::CREATE_OBJECT;
    let parts = [
        [4, 1, 24, 300, 0, 0x11],
        [4, 1, 1 << 31 | 4, 300, 0, 0x22],
        [4, 1, 1 << 31 | 8, 300, 0, 0x33],
    ];
    let mut stream = new();
    for part in &parts {
        stream = stream.add(create, ObjectType::SHADER.0, part);
    }
    let stream = stream.add(Number::BIND_SHADER, 0, &[4, 1]);
    let list = list(&stream.replay());
    for (kept, part) in list.iter().zip(&parts) {
        assert_eq!(kept, &(create, part.to_vec()));
    }
    assert_eq!(list[3], (Number::BIND_SHADER, vec![4, 1]));
    // The stage must be the shader's: the renderer looks, and does nothing.
    let wrong = stream.add(Number::BIND_SHADER, 0, &[4, 0]);
    assert_eq!(wrong.replay(), wrong.fed().replay().unwrap());
    assert_eq!(self::list(&wrong.replay()).len(), 4);
}

#[test]
fn sampler_views_behind_those_of_the_last_command_are_bound_no_more() {
    let stream = new().view(1, 10).view(2, 10).view(3, 10);
    let set = Number::SET_SAMPLER_VIEWS;
    let stream = stream.add(set, 0, &[1, 0, 1, 2, 3]).add(set, 0, &[1, 1, 3]);
    let replay = stream.replay();
    let views = list(&replay).into_iter().find(|(number, _)| *number == set);
    assert_eq!(views.unwrap().1, [1, 0, 1, 3]);
    let stream = stream.add(set, 0, &[1, 0]);
    assert!(!sets(&stream.replay(), set));
}

#[test]
fn slots_set_one_by_one_are_those_set_at_once() {
    let mut count = 0;
    for (number, staged, row) in slotted() {
        let head = |slot| if staged { vec![2, slot] } else { vec![slot] };
        let row = |slot: u32| vec![slot + 1; row];
        if matches!(
            number,
            Number::SET_SAMPLER_VIEWS | Number::BIND_SAMPLER_STATES
        ) {
            continue;
        }
        let at_once = [head(3), row(3), row(4), row(5)].concat();
        let at_once = new().add(number, 0, &at_once);
        let mut by_one = new();
        for slot in [5, 3, 4] {
            by_one = by_one.add(number, 0, &[head(slot), row(slot)].concat());
        }
        assert_eq!(by_one.replay(), at_once.replay(), "{number:?}");
        assert_eq!(list(&by_one.replay()).len(), 1, "{number:?}");
        // The last slot there can be, and one more.
        let last = new().add(number, 0, &[head(127), row(127)].concat());
        assert_eq!(last.fed().loss(), None);
        let beyond = new().add(number, 0, &[head(128), row(128)].concat());
        let malformed = Loss::Malformed { number, at: 0 };
        assert_eq!(beyond.fed().loss(), Some(malformed));
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn each_sub_context_has_its_own_and_the_one_that_is_made_is_current() {
    let create = Number::CREATE_SUB_CTX;
    let colour = Number::SET_BLEND_COLOR;
    let stream = new()
        .add(colour, 0, &[0; 4])
        .add(create, 0, &[5])
        .add(colour, 0, &[5; 4])
        .blend(1)
        .add(Number::SET_SUB_CTX, 0, &[0])
        // One that there is, and one that there is not: nothing happens.
        .add(create, 0, &[5])
        .add(Number::SET_SUB_CTX, 0, &[9])
        .blend(1);
    let replay = stream.replay();
    let last = commands(replay.words()).last().unwrap().unwrap().1;
    assert_eq!((last.number, last.body), (Number::SET_SUB_CTX, &[0][..]));
    let colours: Vec<_> = list(&replay)
        .into_iter()
        .filter(|(number, _)| *number == colour)
        .collect();
    assert_eq!(colours, [(colour, vec![0; 4]), (colour, vec![5; 4])]);
    let ended = stream.add(Number::DESTROY_SUB_CTX, 0, &[5]);
    let ended = ended.add(Number::DESTROY_SUB_CTX, 0, &[0]);
    let same = new().add(colour, 0, &[0; 4]).blend(1);
    assert_eq!(ended.replay(), same.replay());
}

#[test]
fn a_query_cannot_be_saved_between_its_begin_and_the_fetch_of_its_result() {
    let handle = 4;
    let stream = new().query(handle);
    assert_eq!(stream.fed().loss(), None);
    let stream = stream.add(Number::BEGIN_QUERY, 0, &[handle]);
    assert_eq!(stream.fed().loss(), Some(Loss::QueryRuns { handle }));
    let stream = stream.add(Number::END_QUERY, 0, &[handle]);
    assert_eq!(stream.fed().loss(), Some(Loss::QueryUnread { handle }));
    let read = stream.add(Number::GET_QUERY_RESULT, 0, &[handle, 0]);
    assert_eq!(read.fed().loss(), None);
    let conditional = read.add(Number::SET_RENDER_CONDITION, 0, &[handle, 0, 0]);
    assert_eq!(conditional.fed().loss(), Some(Loss::Conditional));
    let after = conditional.add(Number::SET_RENDER_CONDITION, 0, &[0, 0, 0]);
    assert_eq!(after.fed().loss(), None);
}

#[test]
fn a_target_of_transform_feedback_that_was_bound_cannot_be_saved_while_it_lives() {
    let create = Number::CREATE_OBJECT;
    let handle = 2;
    let stream = new().add(create, ObjectType::STREAMOUT_TARGET.0, &[handle, 1, 0, 64]);
    assert_eq!(stream.fed().loss(), None);
    let set = Number::SET_STREAMOUT_TARGETS;
    let stream = stream.add(set, 0, &[0, handle]).add(set, 0, &[0]);
    assert_eq!(stream.fed().loss(), Some(Loss::StreamOut { handle }));
    assert_eq!(stream.destroy(handle).fed().loss(), None);
}

#[test]
fn what_cannot_be_known_is_named_and_takes_no_memory() {
    let framebuffer = Number::SET_FRAMEBUFFER_STATE;
    let malformed = |number| Loss::Malformed { number, at: 0 };
    let unknown = Number(65);
    let video = Number::CREATE_VIDEO_CODEC;
    for (stream, loss) in [
        (
            new().add(unknown, 0, &[]),
            Loss::Unknown { number: unknown },
        ),
        (new().add(video, 0, &[1]), Loss::NoForm { number: video }),
        (Stream(vec![2 << 16, 0]), Loss::Truncated),
        (new().blend(1).blend(1), Loss::Twice { handle: 1 }),
        (
            new().add(framebuffer, 0, &[1, 0, 9]),
            malformed(framebuffer),
        ),
        (
            new().add(framebuffer, 0, &[2, 0, 0]),
            malformed(framebuffer),
        ),
        (
            new().bind(ObjectType::BLEND, 5),
            malformed(Number::BIND_OBJECT),
        ),
        (
            new().bind(ObjectType::SHADER, 0),
            malformed(Number::BIND_OBJECT),
        ),
        (new().blend(0), malformed(Number::CREATE_OBJECT)),
    ] {
        let mut shadow = stream.fed();
        assert_eq!((shadow.loss(), shadow.bytes()), (Some(loss), 0));
        // It stays so.
        shadow.feed(&new().blend(3).0);
        assert_eq!(shadow.replay(), Err(loss));
    }
    let mut shadow = new().fed();
    shadow.refused();
    assert_eq!(shadow.loss(), Some(Loss::Refused));
}

#[test]
fn what_was_bound_of_a_resource_that_is_gone_is_bound_no_more_with_a_warning() {
    let vertices = Number::SET_VERTEX_BUFFERS;
    let stream = new()
        .surface(1, 10)
        .add(Number::SET_FRAMEBUFFER_STATE, 0, &[1, 0, 1])
        .add(vertices, 0, &[32, 0, 11, 16, 0, 12])
        .destroy(1);
    let mut shadow = stream.fed();
    for id in [10, 11, 13] {
        shadow.forget_resource(id);
    }
    let gone = |number| Warning::GoneResource { number };
    let both = [gone(vertices), gone(Number::SET_FRAMEBUFFER_STATE)];
    assert_eq!(shadow.warnings(), both);
    let replay = shadow.replay().unwrap();
    let expected = [
        // virglrenderer refuses one buffer that is none.
        (Number::SET_FRAMEBUFFER_STATE, vec![0, 0]),
        (vertices, vec![32, 0, 0, 16, 0, 12]),
    ];
    assert_eq!(list(&replay), expected);
    // With the next value the warning goes.
    shadow.feed(&new().add(vertices, 0, &[]).0);
    shadow.feed(&new().add(Number::SET_FRAMEBUFFER_STATE, 0, &[0, 0]).0);
    assert_eq!(shadow.warnings(), []);
}

#[test]
fn an_object_that_outlives_its_resource_cannot_be_saved_until_it_is_destroyed() {
    let mut shadow = new().surface(1, 10).fed();
    shadow.forget_resource(10);
    let (handle, kind) = (1, ObjectType::SURFACE);
    assert_eq!(shadow.loss(), Some(Loss::Orphan { handle, kind }));
    shadow.feed(&new().destroy(1).0);
    assert_eq!(shadow.loss(), None);
}

#[test]
fn a_resource_made_in_a_stream_is_given_to_the_blob_that_takes_it_or_made_again() {
    let create = Number::PIPE_RESOURCE_CREATE;
    let body = [2, 1, 2, 64, 64, 1, 1, 0, 0, 0, 33];
    let typed = [5, 1, 2, 64, 64, 0, 0, 0, 256, 0];
    let stream = new()
        .add(Number::PIPE_RESOURCE_SET_TYPE, 0, &typed)
        .add(create, 0, &body)
        .surface(1, 5);
    let list = list(&stream.replay());
    assert_eq!(
        list[..2],
        [
            (Number::PIPE_RESOURCE_SET_TYPE, typed.to_vec()),
            (create, body.to_vec())
        ]
    );
    let mut shadow = stream.fed();
    let taken = shadow.take(33).unwrap();
    assert_eq!((taken.blob_id, taken.params[3]), (33, 64));
    assert_eq!(shadow.take(33), None);
    assert!(!sets(&shadow.replay().unwrap(), create));
    let twice = stream.add(create, 0, &body).fed().loss();
    assert_eq!(twice, Some(Loss::TakenTwice { blob_id: 33 }));
}

#[test]
fn what_a_guest_can_make_a_shadow_keep_is_limited_and_given_back() {
    // Objects.
    let mut shadow = Shadow::default();
    for handle in 1..=u32::try_from(MAX_OBJECTS).unwrap() {
        shadow.feed(&new().elements(handle).0);
    }
    assert_eq!(shadow.loss(), None);
    shadow.feed(&new().elements(u32::MAX).0);
    assert!(matches!(shadow.loss(), Some(Loss::TooMuch { .. })));
    assert_eq!(shadow.bytes(), 0);
    // Bytes: the longest shaders there are.
    let mut shadow = Shadow::default();
    let mut text = vec![0; 65_535];
    (text[1], text[2]) = (1, 1);
    for handle in 1..1000 {
        text[0] = handle;
        let before = shadow.bytes();
        let create = Number::CREATE_OBJECT;
        shadow.feed(&new().add(create, ObjectType::SHADER.0, &text).0);
        assert!(shadow.bytes() <= MAX_BYTES && before <= MAX_BYTES);
    }
    let most = MAX_BYTES;
    let what = "bytes of state";
    assert_eq!(shadow.loss(), Some(Loss::TooMuch { what, most }));
    // Sub-contexts; there is one already.
    let mut shadow = Shadow::default();
    for id in 1..u32::try_from(MAX_SUB_CONTEXTS).unwrap() {
        shadow.feed(&new().add(Number::CREATE_SUB_CTX, 0, &[id]).0);
    }
    assert_eq!(shadow.loss(), None);
    shadow.feed(&new().add(Number::CREATE_SUB_CTX, 0, &[99_999]).0);
    assert!(matches!(shadow.loss(), Some(Loss::TooMuch { .. })));
}

#[test]
fn a_replay_is_cut_between_commands_only() {
    let mut stream = new();
    for handle in 1..200 {
        stream = stream.blend(handle);
    }
    let replay = stream.replay();
    let streams = replay.streams(100);
    assert!(streams.len() > 10);
    for part in &streams {
        assert!(part.len() <= 100);
        assert!(commands(part).all(|command| command.is_ok()));
    }
    assert_eq!(streams.concat(), replay.words());
    // One that is longer than asked for goes alone.
    assert_eq!(replay.streams(1).len(), commands(replay.words()).count());
}

#[test]
fn words_that_would_draw_or_move_bytes_are_no_replay() {
    for number in [
        Number::DRAW_VBO,
        Number::TRANSFER3D,
        Number::BEGIN_QUERY,
        Number::CLEAR,
    ] {
        let stream = new().add(number, 0, &[0; 14]);
        let refused = Replay::check(stream.0).unwrap_err();
        assert_eq!(refused, Loss::Malformed { number, at: 0 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_shadow_of_a_replay_is_the_shadow(bytes in vec(any::<u8>(), 0..600)) {
        run(&program(&bytes));
    }

    #[test]
    fn any_words_are_followed_or_given_up(words in vec(any::<u32>(), 0..200)) {
        let mut shadow = Shadow::default();
        shadow.feed(&words);
        let _ = shadow.replay();
    }
}

#[test]
fn random_programs_do_reach_states_that_are_saved() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut saved, mut commands_saved) = (0, 0);
    for _ in 0..500 {
        let bytes = vec(any::<u8>(), 0..600).new_tree(&mut runner).unwrap();
        if let Ok(replay) = run(&program(&bytes.current())).replay() {
            saved += 1;
            commands_saved += list(&replay).len();
        }
    }
    assert!(
        saved > 25 && commands_saved > 100,
        "{saved} {commands_saved}"
    );
}

#[test]
fn the_seeds_of_the_fuzzer_lead_to_states_that_are_saved() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/virgl_stream");
    let files: Vec<_> = read_dir(seeds).unwrap().collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let bytes = read(file.unwrap().path()).unwrap();
        let replay = run(&program(&bytes)).replay().unwrap();
        assert!(list(&replay).len() >= 15, "{:?}", list(&replay));
    }
}

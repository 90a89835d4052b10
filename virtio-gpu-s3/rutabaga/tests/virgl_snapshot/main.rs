// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What virglrenderer held in one process goes on in another, and draws the same to the bit.
//!
//! There is one virgl renderer in a process, so the test runs itself: once to draw and save, once to restore.

mod guest;

use std::env;
use std::fs::{read, write};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use guest::Guest;
use virtio_gpu_renderer_state::{Followed, Level, RestoreError, SavedRenderer, Unsaved};
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::Renderer;
use virtio_gpu_s3::renderer::{Data, Operation};

/// Contexts, each of which does other things.
const GUESTS: u32 = 16;
const STEPS_BEFORE: u32 = 60;
const STEPS_AFTER: u32 = 40;
const MOST_BYTES: u64 = 256 << 20;

const STEP: &str = "VIRGL_SNAPSHOT_STEP";
const FOLDER: &str = "VIRGL_SNAPSHOT_FOLDER";

type Renderer3d = Followed<RutabagaRenderer>;

fn start() -> Renderer3d {
    let config = RutabagaConfig {
        // OpenGL ES cannot read every format back.
        gles: false,
        ..RutabagaConfig::default()
    };
    Followed::new(RutabagaRenderer::new(&config, || {}).unwrap())
}

/// A hash of all contents, and the contents.
fn contents(renderer: &mut Renderer3d) -> (SavedRenderer, Vec<Vec<u8>>) {
    let mut levels = Vec::new();
    let saved = renderer
        .save(|_, _: &Level, bytes| levels.push(bytes.to_vec()))
        .unwrap();
    (saved, levels)
}

fn say(what: &str, levels: &[Vec<u8>]) {
    let mut all = DefaultHasher::new();
    for level in levels {
        let mut hash = DefaultHasher::new();
        hash.write(level);
        all.write_u64(hash.finish());
    }
    println!("\nhash {what} {:016x}", all.finish());
}

fn draw_and_save(folder: &Path) {
    let mut renderer = start();
    let mut guests: Vec<_> = (1..=GUESTS).map(Guest::new).collect();
    for guest in &mut guests {
        guest.begin(&mut renderer);
        guest.steps(STEPS_BEFORE, &mut renderer);
    }
    let begun = Instant::now();
    let (saved, levels) = contents(&mut renderer);
    println!("\nsaved in {:?}", begun.elapsed());
    // Something was drawn, in every resource.
    let drawn = |level: &Vec<u8>| level.iter().any(|byte| *byte != level[0]);
    assert!(levels.iter().filter(|level| drawn(level)).count() > 60);
    say("saved", &levels);
    write(folder.join("state"), serde_json::to_vec(&saved).unwrap()).unwrap();
    write(folder.join("levels"), serde_json::to_vec(&levels).unwrap()).unwrap();
    for guest in &mut guests {
        guest.steps(STEPS_AFTER, &mut renderer);
    }
    let later = contents(&mut renderer).1;
    assert_ne!(later, levels);
    say("later", &later);
}

fn restore_and_draw(folder: &Path) {
    let mut renderer = start();
    let state = read(folder.join("state")).unwrap();
    let saved: SavedRenderer = serde_json::from_slice(&state).unwrap();
    let levels = read(folder.join("levels")).unwrap();
    let levels: Vec<Vec<u8>> = serde_json::from_slice(&levels).unwrap();
    refusals(&mut renderer, &saved, &levels);
    let mut next = levels.iter();
    let begun = Instant::now();
    let restored = renderer.restore(saved.clone(), MOST_BYTES, |_, _| {
        next.next().unwrap().clone()
    });
    assert_eq!(restored, Ok(()));
    println!("\nrestored in {:?}", begun.elapsed());
    let (again, restored) = contents(&mut renderer);
    // It is the same state, which can be saved again.
    assert_eq!(again, saved);
    assert_eq!(restored, levels);
    say("saved", &restored);
    for id in 1..=GUESTS {
        let mut guest = Guest::new(id);
        guest.pass(STEPS_BEFORE);
        guest.steps(STEPS_AFTER, &mut renderer);
    }
    say("later", &contents(&mut renderer).1);
}

/// What is not in order harms nothing: the renderer has nothing after each, and is restored then.
fn refusals(renderer: &mut Renderer3d, saved: &SavedRenderer, levels: &[Vec<u8>]) {
    let refused = |renderer: &mut Renderer3d, change: &dyn Fn(&mut SavedRenderer)| {
        let mut changed = saved.clone();
        change(&mut changed);
        let mut next = levels.iter();
        let restored = renderer.restore(changed, MOST_BYTES, |_, _| {
            next.next().cloned().unwrap_or_default()
        });
        assert_eq!(renderer.unsaved(), None);
        restored.unwrap_err()
    };
    let newer = refused(renderer, &|saved| saved.version = 2);
    assert!(matches!(newer, RestoreError::Unknown { version: 2, .. }));
    let other = refused(renderer, &|saved| saved.capsets[0].description[8] ^= 1);
    assert!(matches!(other, RestoreError::Capset { .. }));
    let fewer = refused(renderer, &|saved| {
        saved.capsets.pop();
    });
    assert!(matches!(fewer, RestoreError::Capset { .. }));
    let large = refused(renderer, &|saved| saved.resources[0].params.width = 40_000);
    assert!(matches!(large, RestoreError::Resource { .. }));
    let gone = refused(renderer, &|saved| {
        saved.resources.pop();
    });
    assert!(matches!(gone, RestoreError::Context { .. }));
    let draws = refused(renderer, &|saved| {
        saved.contexts[0]
            .replay
            .extend([7 | 8 << 16, 4, 0, 0, 0, 0, 0, 0, 0]);
    });
    assert!(matches!(draws, RestoreError::Replay { ctx_id: 1, .. }));
    // The renderer itself finds that a surface is of a resource that its context may not use.
    let alone = refused(renderer, &|saved| saved.contexts[2].attached.clear());
    assert!(matches!(alone, RestoreError::Renderer { .. }));
    // What is missing of the contents is.
    let most = MOST_BYTES;
    let short = renderer.restore(saved.clone(), most, |_, _| vec![0]);
    assert!(matches!(short, Err(RestoreError::Contents { .. })));
    let small = renderer.restore(saved.clone(), 1000, |_, _| vec![0]);
    assert!(matches!(small, Err(RestoreError::Resource { .. })));
}

/// What this test prints in a process of its own.
fn run(test: &str, step: &str, folder: &Path) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(STEP, step)
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{step}: {said}\n{log}");
    said
}

fn hashes(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|line| line.starts_with("hash "))
        .collect()
}

#[test]
fn contexts_that_were_saved_in_one_process_draw_the_same_in_another() {
    let folder = env::var_os(FOLDER).unwrap_or_default();
    match env::var(STEP).as_deref() {
        Ok("save") => return draw_and_save(Path::new(&folder)),
        Ok(_) => return restore_and_draw(Path::new(&folder)),
        Err(_) => {}
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "contexts_that_were_saved_in_one_process_draw_the_same_in_another";
    let saved = run(test, "save", folder.path());
    let restored = run(test, "restore", folder.path());
    for said in [&saved, &restored] {
        for line in said.lines().filter(|line| line.contains(" in ")) {
            println!("{line}");
        }
    }
    assert_eq!(hashes(&saved).len(), 2, "{saved}");
    assert_eq!(hashes(&saved), hashes(&restored));
}

/// In a process of its own, as there is one renderer in each.
fn what_cannot_be_saved() {
    let mut renderer = start();
    let mut guest = Guest::new(1);
    guest.begin(&mut renderer);
    assert_eq!(renderer.unsaved(), None);
    let (id, samples) = (7, 4);
    let params = guest::texture(64, 64, samples);
    let resource_id = id;
    let multisampled = Operation::CreateResource {
        resource_id,
        params,
    };
    renderer.call(multisampled.call()).unwrap();
    assert_eq!(
        renderer.unsaved(),
        Some(Unsaved::Multisampled { id, samples })
    );
    let destroy = Operation::DestroyResource { resource_id };
    renderer.call(destroy.call()).unwrap();
    assert_eq!(renderer.unsaved(), None);
    // A surface that does not exist: the context is in error from here on. virglrenderer 0.10.4 says so at the next
    // stream only.
    let submit = Operation::Submit {
        ctx_id: 1,
        in_fences: Vec::new(),
    };
    let mut wrong = [5 | 3 << 16, 1, 0, 999];
    let _ = renderer.call(submit.with(Data::Words(&mut wrong)));
    assert!(matches!(
        renderer.unsaved(),
        Some(Unsaved::Context { ctx_id: 1, .. })
    ));
    // With the context it ends.
    let end = Operation::DestroyContext { ctx_id: 1 };
    renderer.call(end.call()).unwrap();
    assert_eq!(renderer.unsaved(), None);
}

#[test]
fn what_cannot_be_saved_is_named_while_it_is_there() {
    if env::var_os(STEP).is_some() {
        return what_cannot_be_saved();
    }
    let test = "what_cannot_be_saved_is_named_while_it_is_there";
    run(test, "unsaved", Path::new("."));
}

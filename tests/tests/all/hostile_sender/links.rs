//! Links in the destination's way, and a local process that swaps directories for links while a receiver writes (A4).

use super::{honest, job};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sealift_tests::hostile::forge::{TIME, record};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, Scene};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a4_links_that_stand_in_the_way_are_replaced_and_never_followed() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    set.record(record::root(0o755, TIME));
    set.entry(record::directory(0, b"d", 0o700, TIME));
    set.file("d/deep", "new");
    set.directory("d/inner");
    set.file("d/inner/deep", "new as well");
    set.file("secret", "a file in a link's place");
    set.file("large", vec![7; 3 << 20]);
    set.symlink("link", "../outside/secret");
    set.entry(record::hardlink(set.next_id(), b"second", b"secret"));
    let sender = honest(&job, set.segments(&mut forger), set);

    let scene = Scene::new();
    let dest = scene.dest();
    fs::create_dir(&dest).expect("there is room");
    symlink("../outside", dest.join("d")).expect("a link");
    symlink("../outside/secret", dest.join("secret")).expect("a link");
    symlink("../outside/secret", dest.join("large")).expect("a link");
    symlink("../outside", dest.join("link")).expect("a link");
    symlink("../outside/secret", dest.join("second")).expect("a link");

    let outcome = scene.receive(sender.ticket()).finish().expect(0);
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    assert!(fs::symlink_metadata(dest.join("d")).expect("there").is_dir());
    assert_eq!(fs::read(dest.join("d/inner/deep")).expect("there"), b"new as well");
    assert!(fs::symlink_metadata(dest.join("large")).expect("there").is_file());
    assert!(fs::symlink_metadata(dest.join("secret")).expect("there").is_file());
    assert_eq!(fs::read_link(dest.join("link")).expect("a link").as_os_str(), "../outside/secret");
    let inode = |name| fs::symlink_metadata(dest.join(name)).expect("there").ino();
    assert_eq!(inode("second"), inode("secret"));
}

#[test]
fn a4_a_local_swap_of_a_directory_for_a_link_leads_nothing_outside() {
    const BUDGET: Duration = Duration::from_secs(2);
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < BUDGET || rounds < 2 {
        let (job, mut forger) = job();
        let mut set = DataSet::default();
        set.entry(record::directory(0, b"d", 0o711, TIME));
        set.entry(record::directory(1, b"d/inner", 0o711, TIME));
        for at in 0..60 {
            set.file(format!("d/f{at}"), format!("content {at}"));
            set.file(format!("d/inner/f{at}"), format!("content {at}"));
        }
        set.file("d/secret", "not outside");
        set.file("d/inner/deep", "not outside");
        set.file("d/large", vec![3; 2 << 20]);
        set.symlink("d/link", "f1");
        set.directory("d/new");
        set.entry(record::hardlink(set.next_id(), b"d/hard", b"d/f1"));
        let sender = honest(&job, set.segments(&mut forger), set);

        let scene = Scene::new();
        let dest = scene.dest();
        fs::create_dir_all(dest.join("d")).expect("there is room");
        fs::write(dest.join("d/secret"), "old").expect("there is room");
        symlink("../outside", dest.join("swap")).expect("a link");
        let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (from, to) = (dest.join("d"), dest.join("swap"));
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Either may be gone for a moment.
                    let swapped = renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE);
                    swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            let outcome = scene.receive(sender.ticket()).args(["--fsync", "no"]).finish();
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        assert!(swaps.into_inner() > 1, "they are swapped while it writes");
        assert_plain(&outcome);
        scene.assert_outside_untouched();
        assert!(matches!(outcome.code, Some(0 | 1 | 3)), "{outcome:#?}");
        rounds += 1;
    }
}

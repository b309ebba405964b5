//! Replicating, end to end.

use sealift_tests::process::Sender;

#[test]
fn a_directory_is_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    std::fs::create_dir(&src).unwrap();
    std::fs::write(src.join("hello"), "world").unwrap();
    let sender = Sender::start([&src], &[]);
    let received = sender.receive(&dst, &[]).expect(0);
    assert_eq!(received.total("files"), 1);
    assert_eq!(std::fs::read(dst.join("hello")).unwrap(), b"world");
    let sent = sender.stop().expect(0);
    assert_eq!(sent.total("bytes_transferred"), 5);
}

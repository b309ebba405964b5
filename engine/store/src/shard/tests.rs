//! Block I/O on both backends; what happens when futures are dropped and shards end with work in flight.

use super::*;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;

const SMALL: PoolConfig = PoolConfig { slot_bytes: 64 << 10, slots: 4, large_slots: 1 };

/// Runs a shard on every backend that this machine allows.
fn on_each_backend<F, Fut>(f: F)
where
    F: Fn(BlockIo) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let mut backends = vec![Backend::Threads];
    match uring::probe() {
        Ok(()) => backends.push(Backend::Uring),
        Err(error) => eprintln!("io_uring is not tested: {error}"),
    }
    for backend in backends {
        let shard = spawn_shard("test", backend, SMALL, f.clone()).unwrap();
        shard.join().unwrap_or_else(|panic| resume_unwind(panic)).unwrap();
    }
}

fn file(bytes: usize) -> (Arc<File>, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..253).cycle().take(bytes).collect();
    file.write_all_at(&content, 0).unwrap();
    (Arc::new(file), content)
}

#[test]
fn reads_append_and_writes_land_where_they_belong() {
    on_each_backend(|io| async move {
        let (file, content) = file(100_000);
        let file = io.attach(file).unwrap();
        let mut buf = io.pool().acquire(1).await;
        buf.put_slice(b"head");
        let (result, buf) = io.read_exact_at(&file, 1000, 30_000, buf).await;
        result.unwrap();
        assert_eq!(&buf.as_slice()[..4], b"head");
        assert_eq!(&buf.as_slice()[4..], &content[1000..31_000]);
        let (result, buf) = io.read_exact_at(&file, 70_000, 30_000, buf).await;
        result.unwrap();
        assert_eq!(buf.len(), 60_004);
        assert_eq!(&buf.as_slice()[30_004..], &content[70_000..]);
        let (result, buf) = io.write_all_at(&file, 200_000, buf, 2..60_004).await;
        result.unwrap();
        let mut written = vec![0; 60_002];
        file.file().read_exact_at(&mut written, 200_000).unwrap();
        assert_eq!(written, buf.as_slice()[2..]);
        assert_eq!(file.file().metadata().unwrap().len(), 260_002);
        let (result, buf) = io.write_all_at(&file, 0, buf, 5..5).await;
        result.unwrap();
        let (result, _buf) = io.read_exact_at(&file, 1 << 40, 0, buf).await;
        result.unwrap();
    });
}

#[test]
fn large_blocks_go_through_large_slots() {
    on_each_backend(|io| async move {
        let size = 16 << 20;
        let (file, content) = file(size);
        let file = io.attach(file).unwrap();
        let buf = io.pool().acquire(size).await;
        let (result, buf) = io.read_exact_at(&file, 0, size, buf).await;
        result.unwrap();
        assert_eq!(buf.as_slice(), content);
        let (result, _buf) = io.write_all_at(&file, size as u64, buf, 0..size).await;
        result.unwrap();
        assert_eq!(file.file().metadata().unwrap().len(), 2 * size as u64);
    });
}

#[test]
fn a21_a_short_file_leaves_the_buffer_as_it_was() {
    on_each_backend(|io| async move {
        for _ in 0..io.pool().slots() {
            let mut canary = io.pool().acquire(1).await;
            canary.spare_mut(64 << 10).fill(0xC5);
            canary.advance(64 << 10);
        }
        let (file, _) = file(10_000);
        let file = io.attach(file).unwrap();
        let mut buf = io.pool().acquire(1).await;
        buf.put_slice(b"kept");
        let (result, buf) = io.read_exact_at(&file, 0, 20_000, buf).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(buf.as_slice(), b"kept");
        let (result, buf) = io.read_exact_at(&file, u64::MAX - 1, 20_000, buf).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(buf.as_slice(), b"kept");
    });
}

#[test]
fn errors_of_the_disk_come_back_with_the_buffer() {
    on_each_backend(|io| async move {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = io.attach(Arc::new(File::open(named.path()).unwrap())).unwrap();
        let mut buf = io.pool().acquire(1).await;
        buf.put_slice(b"data");
        let (result, buf) = io.write_all_at(&file, 0, buf, 0..4).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(9), "the file is open for reading only");
        assert_eq!(buf.as_slice(), b"data");
    });
}

#[test]
fn more_work_than_buffers_waits_and_completes() {
    on_each_backend(|io| async move {
        let (file, content) = file(60_000);
        let file = io.attach(file).unwrap();
        let content = Rc::new(content);
        let tasks: Vec<_> = (0..200_usize)
            .map(|i| {
                let (io, file, content) = (io.clone(), file.clone(), Rc::clone(&content));
                tokio::task::spawn_local(async move {
                    let buf = io.pool().acquire(1).await;
                    let (result, buf) = io.read_exact_at(&file, i as u64, 50_000, buf).await;
                    result.unwrap();
                    assert_eq!(buf.as_slice(), &content[i..i + 50_000]);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(io.pool().free_slots(), io.pool().slots());
    });
}

#[test]
fn an_abandoned_operation_keeps_its_buffer_until_the_kernel_is_done() {
    on_each_backend(|io| async move {
        let (file, content) = file(60_000);
        let file = io.attach(file).unwrap();
        for round in 0..100 {
            let buf = io.pool().acquire(1).await;
            let mut read = Box::pin(io.read_exact_at(&file, 0, 50_000, buf));
            // Polled a few times, so that it is given up at different stages.
            for _ in 0..round % 3 {
                let polled = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_ready())).await;
                if polled {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(read);
            // Whatever slot comes next, nothing else writes into it.
            let mut buf = io.pool().acquire(1).await;
            buf.put_slice(&[0xC5; 60_000]);
            tokio::task::yield_now().await;
            assert!(buf.as_slice().iter().all(|&byte| byte == 0xC5));
        }
        let mut all = Vec::new();
        for _ in 0..io.pool().slots() {
            all.push(io.pool().acquire(1).await);
        }
        drop(content);
    });
}

#[test]
fn a_read_that_the_kernel_has_not_finished_holds_its_slot_though_nobody_waits() {
    use std::io::Write;
    let Ok(()) = uring::probe() else { return eprintln!("io_uring is not tested here") };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = Arc::new(File::from(std::os::fd::OwnedFd::from(reader)));
    for bytes in [60_000, 1 << 20] {
        // A registered buffer, then an unregistered one; then the shard ends with a read in flight.
        let reader = Arc::clone(&reader);
        let mut late_writer = writer.try_clone().unwrap();
        let (ending, ends) = mpsc::channel();
        let shard = spawn_shard("test", Backend::Uring, SMALL, move |io| async move {
            let file = io.attach(reader).unwrap();
            let buf = io.pool().acquire(bytes).await;
            let mut read = Box::pin(io.read_exact_at(&file, 0, 1000, buf));
            assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
            tokio::task::yield_now().await;
            // A timer makes the thread park, which is when the ring is submitted.
            tokio::time::timeout(std::time::Duration::from_millis(1), std::future::pending::<()>())
                .await
                .unwrap_err();
            drop(read);
            tokio::task::yield_now().await;
            let mut free = Vec::new();
            while let Some(buf) = io.pool().try_acquire(bytes) {
                free.push(buf);
            }
            assert_eq!(free.len(), if bytes > 64 << 10 { 0 } else { io.pool().slots() - 1 });
            late_writer.write_all(&[7; 1000]).unwrap();
            // Comes only when the read is over.
            let mut buf = io.pool().acquire(bytes).await;
            buf.put_slice(&[0xC5; 1000]);
            assert!(buf.as_slice().iter().all(|&byte| byte == 0xC5));
            let mut last = Box::pin(io.read_exact_at(&file, 0, 1000, buf));
            assert!(poll_fn(|cx| Poll::Ready(last.as_mut().poll(cx).is_pending())).await);
            tokio::task::yield_now().await;
            ending.send(()).unwrap();
            io.pool().clone()
        })
        .unwrap();
        ends.recv().unwrap();
        // Ends the read that the shard was left with.
        writer.write_all(&[8; 1000]).unwrap();
        let pool = shard.join().unwrap_or_else(|panic| resume_unwind(panic)).unwrap();
        assert_eq!(pool.free_slots(), pool.slots());
    }
}

#[test]
fn a_shard_that_ends_or_panics_with_work_in_flight_waits_for_it() {
    let (sent, pools) = mpsc::channel();
    on_each_backend(move |io| {
        let sent = sent.clone();
        async move {
            let (file, _) = file(60_000);
            let file = io.attach(file).unwrap();
            for _ in 0..io.pool().slots() {
                let (task_io, file) = (io.clone(), file.clone());
                let buf = io.pool().acquire(1).await;
                tokio::task::spawn_local(async move { task_io.read_exact_at(&file, 0, 50_000, buf).await.0 });
            }
            tokio::task::yield_now().await;
            sent.send(io.pool().clone()).unwrap();
        }
    });
    for pool in pools {
        // Jobs on worker threads end on their own.
        while pool.free_slots() < pool.slots() {
            std::thread::yield_now();
        }
    }
    if uring::probe().is_ok() {
        let shard = spawn_shard("test", Backend::Uring, SMALL, |io| async move {
            let (file, _) = file(60_000);
            let file = io.attach(file).unwrap();
            let buf = io.pool().acquire(1).await;
            let mut read = Box::pin(io.read_exact_at(&file, 0, 50_000, buf));
            poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_ready())).await;
            tokio::task::yield_now().await;
            std::panic::panic_any("by design");
        })
        .unwrap();
        let panic: Box<dyn std::any::Any + Send> =
            shard.join().map(|result: io::Result<()>| result.unwrap()).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"by design"));
    }
}

#[test]
fn buffers_of_another_pool_are_served_too() {
    on_each_backend(|io| async move {
        let (file, content) = file(60_000);
        let file = io.attach(file).unwrap();
        let other = BufferPool::new(SMALL).unwrap();
        let mine = io.pool().acquire(1).await;
        let theirs = other.acquire(1).await;
        let (first, second) =
            (io.read_exact_at(&file, 0, 100, mine), io.read_exact_at(&file, 100, 100, theirs));
        let ((result, mine), (other_result, theirs)) = (first.await, second.await);
        result.unwrap();
        other_result.unwrap();
        assert_eq!(mine.as_slice(), &content[..100]);
        assert_eq!(theirs.as_slice(), &content[100..200]);
    });
}

#[test]
fn tasks_timers_and_sockets_work_inside() {
    on_each_backend(|io| async move {
        assert!(!io.describe().is_empty());
        assert_eq!(io.blocking(|| 7).await, 7);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = tokio::task::spawn_local(tokio::net::TcpStream::connect(address));
        listener.accept().await.unwrap();
        dialled.await.unwrap().unwrap();
        let never = std::future::pending::<()>();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), never).await.is_err());
    });
}

#[test]
fn b7_the_backend_is_chosen_by_setting_or_probe() {
    let by = |setting| Backend::choose_by(setting).map(|choice| choice.backend);
    assert_eq!(by(Some("uring")).unwrap(), Backend::Uring);
    assert_eq!(by(Some("threads")).unwrap(), Backend::Threads);
    assert!(by(Some("fast")).unwrap_err().to_string().contains("fast"));
    assert!(!Backend::choose_by(None).unwrap().reason.is_empty());
}

#[test]
fn b7_a_shard_that_cannot_be_had_is_an_error() {
    let config = PoolConfig { slot_bytes: usize::MAX / 2, slots: 64, large_slots: 1 };
    let shard = spawn_shard("test", Backend::Threads, config, |_| async {}).unwrap();
    assert!(shard.join().unwrap().is_err());
}

#[test]
fn b7_the_default_pool_works_whatever_may_be_locked() {
    let Ok(()) = uring::probe() else { return eprintln!("io_uring is not tested here") };
    let shard = spawn_shard("test", Backend::Uring, PoolConfig::default(), |io| async move {
        let (file, content) = file(60_000);
        let file = io.attach(file).unwrap();
        let buf = io.pool().acquire(60_000).await;
        let (result, buf) = io.read_exact_at(&file, 0, 60_000, buf).await;
        result.unwrap();
        assert_eq!(buf.as_slice(), content);
        io.describe().to_owned()
    });
    let description = shard.unwrap().join().unwrap().unwrap();
    assert!(description.starts_with("io_uring, "), "{description}");
}

#[test]
fn a_shard_that_is_never_idle_still_gets_its_blocks() {
    on_each_backend(|io| async move {
        let (file, content) = file(60_000);
        let file = io.attach(file).unwrap();
        // tokio-uring submits when the thread parks, which this prevents.
        let busy = tokio::task::spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        for bytes in [50_000, 1 << 20] {
            let buf = io.pool().acquire(bytes).await;
            let (result, buf) = io.read_exact_at(&file, 0, 50_000, buf).await;
            result.unwrap();
            assert_eq!(buf.as_slice(), &content[..50_000]);
            let (result, _buf) = io.write_all_at(&file, 100_000, buf, 0..50_000).await;
            result.unwrap();
        }
        busy.abort();
    });
}

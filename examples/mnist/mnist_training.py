"""What runs on the cluster: `train` on every worker, `evaluate` on the driver beside it."""

import os
import signal

STEPS_PER_LOOK = 10  # steps between two points of the curves


def train(args, ctx):
    """The `main_fun`: every worker runs these lines, in step with the others.

    Args:
        args: {"data": URL of the parts, "steps", "steps_per_checkpoint", "batch_size",
            "accident_at": optional, the step after which the last worker kills itself, once}.
        ctx: who this worker is, and where it may write.

    Returns:
        {"began_at": the step of the checkpoint that it went on from, "images": how many it trained
        on, "losses": [(step, loss), ...]}.
    """
    import tensorflow as tf
    from mnist_data import read_parts
    from mnist_model import batches_of, build, make_train_step

    # First, because it connects the workers. TF_CONFIG, which is set, says who they are.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    images, labels = read_parts(ctx.fetch(f"{args['data']}/part-*.npz"))  # my parts, not all
    model, optimizer = build(strategy, images.shape[1:])
    batches = batches_of(strategy, images, labels, args["batch_size"])
    train_step = make_train_step(strategy, model, optimizer, batches, args["batch_size"])

    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    if latest := ctx.latest_checkpoint():  # after a restart
        checkpoint.restore(latest).assert_existing_objects_matched()
    # All have to save, since that may gather values from all; the files of one count.
    manager = tf.train.CheckpointManager(
        checkpoint, ctx.checkpoint_dir if ctx.is_chief else ctx.local_dir, max_to_keep=3
    )
    agree = make_agreement(strategy)
    writer = tf.summary.create_file_writer(os.path.join(ctx.log_dir, "train"))

    began_at = done = int(optimizer.iterations.numpy())
    losses, is_told = [], False
    while done < args["steps"] and not is_told:
        loss = float(train_step())
        done += 1
        ctx.report_progress(done, loss=loss, total_steps=args["steps"])
        if done % STEPS_PER_LOOK == 0:
            losses.append((done, round(loss, 4)))
            with writer.as_default(step=done):
                tf.summary.scalar("loss", loss)
            # Nobody may leave alone: the others would wait for its gradients.
            is_told = agree(ctx.should_stop)
        if done % args["steps_per_checkpoint"] == 0 or is_told:
            print(f"step {done}: loss {loss:.4f}", flush=True)
            writer.flush()
            with ctx.section("checkpoint"):
                manager.save(checkpoint_number=done)
        have_accident(args, ctx, done)
    writer.close()

    save_model(model, ctx)
    return {"began_at": began_at, "images": len(labels), "losses": losses}


def make_agreement(strategy):
    """A function that is true on all workers as soon as it was called with True on one."""
    import tensorflow as tf

    @tf.function
    def count(flag):
        return strategy.reduce("SUM", strategy.run(lambda: flag), axis=None)

    return lambda flag: bool(count(tf.constant(1.0 if flag else 0.0)) > 0)


def save_model(model, ctx):
    """The trained model. All save, as with checkpoints; that of the first worker is kept."""
    path = os.path.join(ctx.local_dir, "digits.keras")
    model.save(path)
    if ctx.is_chief:
        ctx.upload(path)  # into `model_dir`, wherever that is


def have_accident(args, ctx, done):
    """What the third notebook looks at: a process that is killed, as the kernel does it when the
    memory is full. Only in the first generation, so that the restart can go well."""
    is_last = ctx.task_index == ctx.num_workers - 1
    if done == args.get("accident_at") and is_last and ctx.generation == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def evaluate(args, checkpoint):
    """For `cluster.evaluate_on_driver`: judges one checkpoint on images that training never saw."""
    import tensorflow as tf
    from mnist_data import load_images
    from mnist_model import build_model, judge

    _, (images, labels) = load_images()
    model = build_model(images.shape[1:])
    tf.train.Checkpoint(model=model).read(checkpoint.path).expect_partial()
    return judge(model, images, labels)

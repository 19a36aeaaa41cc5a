"""What is kept between calls can be given back, and comes again."""

import threading

import torch

import inpaint_ops
from inpaint_ops.ops.convolution.packed_weights import packed_weights


def test_packed_weights_go_and_come_again():
    layer = inpaint_ops.FusedConv2d(16, 16, 3, padding=1)
    x = torch.rand(1, 16, 24, 24)
    with torch.no_grad():
        before = layer(x)
        assert len(packed_weights) > 0
        inpaint_ops.release_memory()
        assert len(packed_weights) == 0
        assert torch.equal(layer(x), before)


def test_calls_of_other_threads_go_on():
    layer = inpaint_ops.GatedConv2d(8, 16, 3, padding=1)
    x, results = torch.rand(1, 8, 40, 40), []

    def run():
        with torch.no_grad():
            results.extend(layer(x) for _ in range(40))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        inpaint_ops.release_memory()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert all(torch.equal(one, results[0]) for one in results)

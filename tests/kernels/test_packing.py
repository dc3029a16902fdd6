import torch

from recsys.kernels.shared.packing import moved_together


def test_tensors_of_all_types_arrive_as_they_were_in_one_aligned_buffer() -> None:
    sent = [
        torch.arange(5),
        torch.tensor([[True, False, True]]),
        torch.zeros(0, 3, dtype=torch.int32),
        torch.arange(7, dtype=torch.int32).view(7, 1),
        torch.tensor(2.5, dtype=torch.float64),
        torch.arange(6.0).view(2, 3).T,
    ]
    got = moved_together(sent, torch.device("cpu"))
    for a, b in zip(got, sent, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
        assert a.is_contiguous()
    start = got[0].untyped_storage().data_ptr()
    assert {x.untyped_storage().data_ptr() for x in got} == {start}
    assert all((x.data_ptr() - start) % 16 == 0 for x in got if x.numel())
    got[0] += 1
    assert sent[0].tolist() == [0, 1, 2, 3, 4]


def test_nothing_is_moved_as_nothing() -> None:
    assert moved_together([], torch.device("cpu")) == []

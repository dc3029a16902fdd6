"""Checks that an encoder of one's own keeps the contract of encoders, as the built-in ones are checked.

    from recsys.testing import check_encoder, encoder_checks

    check_encoder("my-encoder")  # all of them; the first that fails raises AssertionError

    @pytest.mark.parametrize("check", encoder_checks("my-encoder", {"layers": 3}), ids=str)
    def test_my_encoder(check):  # or each as a test of its own
        check()

May import the encoders and what they stand on; needs no pytest.
"""

from recsys.testing.checking import EncoderCheck, check_encoder, encoder_checks

__all__ = ["EncoderCheck", "check_encoder", "encoder_checks"]

"""Plan + RLAConfig -> Design: where every layer of the hidden state goes."""
